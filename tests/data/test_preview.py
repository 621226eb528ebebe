"""What is shown is what the model sees: to the character, with borders between tokens, and harmless to a terminal."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from multifaceted.data.pieces import pieces_of, tree_pieces
from multifaceted.data.preview import Look, Segment, Viewed, lay_out, show_example, show_left_out, spread
from multifaceted.data.tokenize import Limits, Overlong, tokenize
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.records import Example, StatedPreference, Turn
from multifaceted.template import set_template
from multifaceted.trees import TokenTree

WORDS = "You value rain. Why does it rain? Because the clouds are full. No idea at all."
CODES = re.compile("\x1b\\[[0-9;]*m")


def byte_level():
    return train_tokenizer([WORDS] * 3, 300)


def metaspace():
    """As SentencePiece models are converted: blanks are marks, the first one is dropped, bytes are tokens."""
    letters = {*WORDS.replace(" ", "▁"), "▁"}
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(letters), "▁v", "ue"]
    bpe = Tokenizer(
        models.BPE(
            {token: place for place, token in enumerate(vocabulary)},
            [("▁", "v"), ("u", "e")],
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {"byte_level": byte_level(), "metaspace": metaspace()}
for _tokenizer in TOKENIZERS.values():
    set_template(_tokenizer, "janus")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from([WORDS, "🌧️ für 雨", "� x"])
shown_as_it_is = st.characters(exclude_categories=["Cs", "Cc", "Cf"]) | st.just("\n")
printable = st.text(shown_as_it_is, min_size=1, max_size=60).filter(str.strip)
names = st.sampled_from(sorted(TOKENIZERS))


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def decoded(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


@given(name=names, text=texts, data=st.data())
def test_pieces_are_the_text_wherever_it_is_cut(name, text, data):
    tokenizer = TOKENIZERS[name]
    ids = [tokenizer.bos_token_id, *ids_of(tokenizer, text), tokenizer.eos_token_id]
    ids = ids[: data.draw(st.integers(1, len(ids)))]
    middle = data.draw(st.integers(0, len(ids)))
    first, second = pieces_of(tokenizer, ids[:middle]), pieces_of(tokenizer, ids[middle:], ids[:middle])
    assert [one for piece in first for one in piece.ids] == ids[:middle]
    assert [one for piece in second for one in piece.ids] == ids[middle:]
    assert "".join(piece.text for piece in first) == decoded(tokenizer, ids[:middle])
    whole = decoded(tokenizer, ids)
    if whole.startswith(decoded(tokenizer, ids[:middle])):
        assert "".join(piece.text for piece in [*first, *second]) == whole
    else:
        assert "".join(piece.text for piece in second) == decoded(tokenizer, ids[middle:])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_that_split_a_character_are_one_piece(name):
    tokenizer = TOKENIZERS[name]
    pieces = pieces_of(tokenizer, ids_of(tokenizer, "u🌧y"))
    assert [piece.text for piece in pieces][-3:] == ["u", "🌧", "y"] and len(pieces[-2].ids) == 4
    assert all(len(piece.ids) == 1 for piece in pieces if piece.text != "🌧")
    cut = pieces_of(tokenizer, ids_of(tokenizer, "u🌧")[:-1])
    assert len(cut[-1].ids) == 3 and set(cut[-1].text) == {"�"}, "a cut may leave half a character"


def tree_of(tokenizer, system, asked, chosen, rejected, *, max_length=2000):
    example = Example(
        id="rows:1",
        system=system,
        turns=[Turn(role="user", content=asked)],
        chosen=chosen,
        rejected=[rejected],
        source="rows",
    )
    limits = Limits(max_length=max_length, max_tokens=None, overlong=Overlong.CUT)
    (row,) = tokenize([example], tokenizer, limits, with_rejected=True)
    return example, row.tree


def read_back(shown):
    """The texts of a shown example by their gutters, with lines put together again."""
    blocks, last = {}, None
    for line in shown.split("\n"):
        found = re.fullmatch(r"    ([|+.-]) (.*)", line)
        if found is None:
            continue
        sign, text = found.groups()
        if sign == ".":
            blocks[last] += text
        else:
            blocks[sign] = f"{blocks[sign]}\n{text}" if sign in blocks else text
            last = sign
    return blocks["|"], *(re.fullmatch(r"\[\[(.*)\]\]", blocks[sign], re.DOTALL)[1] for sign in "+-")


@settings(max_examples=40)
@given(name=names, data=st.data(), colour=st.booleans(), width=st.integers(20, 90))
def test_what_is_shown_is_what_the_tree_says(name, data, colour, width):
    tokenizer = TOKENIZERS[name]
    system, asked, chosen, rejected = (data.draw(printable) for _ in range(4))
    # A text that spells a special token is left out before it is shown.
    if chosen == rejected or any(token in f"{system}{asked}{chosen}{rejected}" for token in ("<s>", "</s>", "<unk>")):
        return
    example, tree = tree_of(tokenizer, system, asked, chosen, rejected)
    viewed = Viewed(example=example, view="released", tree=tree, cut=["", ""])
    shown = show_example(viewed, tokenizer, Look(colour=colour, width=width), title="example", limit=99)
    assert ("\x1b" in shown) == colour
    prompt, *branches = read_back(CODES.sub("", shown))
    assert prompt == decoded(tokenizer, tree.prompt)
    assert prompt.startswith("<s>") and all(branch.endswith("</s>") for branch in branches)
    for branch, ids in zip(branches, tree.branches, strict=True):
        assert prompt + branch == decoded(tokenizer, [*tree.prompt, *ids])


def test_colours_and_borders_tell_tokens_and_parts_apart():
    tokenizer = TOKENIZERS["byte_level"]
    example, tree = tree_of(tokenizer, "You value rain.", "Why?", "Because the clouds are full.", "No idea.")
    example.preferences = [StatedPreference(dimension="style", subdimension="tone", preference="dry", description="")]
    example.contrast, example.margin = ["style"], 0.5
    viewed = Viewed(example=example, view="all", tree=tree, cut=["", "7 tokens"])
    plain = show_example(viewed, tokenizer, Look(colour=False), title="example 1:", limit=99)
    assert "view all" in plain and "states style / tone / dry" in plain and "differs in style, margin 0.5" in plain
    counts = f"prompt {len(tree.prompt)}, chosen {len(tree.branches[0])}, rejected {len(tree.branches[1])} tokens"
    assert counts in plain and f"{len(tree.prompt) + len(tree.branches[0])} of 99" in plain
    assert "No idea.</s>]] 7 tokens cut off here" in plain
    assert re.search(r"tokens  rejected   .*\|</s>$", plain, re.MULTILINE)
    shown = show_example(viewed, tokenizer, Look(colour=True, width=200), title="example 1:", limit=99)
    _, (chosen, rejected) = tree_pieces(tokenizer, tree)
    (line,) = (line for line in shown.split("\n") if line.startswith("    \x1b[32m+"))
    painted = re.findall("\x1b\\[(32[;0-9]*)m(.*?)\x1b\\[0m", line)[1:]
    assert [text for _, text in painted] == [piece.text for piece in chosen]
    assert ["4" in codes.split(";") for codes, _ in painted] == [place % 2 == 1 for place in range(len(chosen))]
    assert [text for codes, text in painted if "7" in codes.split(";")] == ["</s>"]
    assert "\x1b[7m<s>\x1b[0m" in shown and shown.count("\x1b[31") == len(rejected) + 1


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b31m", "a\rb", "\u202eabc", "\x07"])
def test_a_text_cannot_reach_the_terminal(text):
    tokenizer = TOKENIZERS["byte_level"]
    example, tree = tree_of(tokenizer, text, "Why?", f"It{text}", "No.")
    example.source = tree.source = tree.id = text
    viewed = Viewed(example=example, view="released", tree=tree, cut=["", ""])
    look = Look(colour=False)
    shown = show_example(viewed, tokenizer, look, title="example", limit=99)
    shown += show_left_out("empty", 1, f"first {text}", look, example=example)
    assert shown.isprintable() or set(filter(lambda c: not c.isprintable(), shown)) == {"\n"}
    assert text.encode("unicode_escape").decode() in shown


@given(text=printable, width=st.integers(10, 40))
def test_lines_fit(text, width):
    look = Look(colour=False, width=width)
    lines = lay_out([Segment(text)], look, "    | ")
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "".join(line[6:] if line[4] == "." else f"\n{line[6:]}" for line in lines) == f"\n{text}"


def tree(name, source):
    return TokenTree(id=name, prompt=[1], branches=[[2]], source=source)


def test_a_spread_has_every_source_and_does_not_depend_on_order():
    trees = [tree(f"{source}-{i}", source) for source, n in (("a", 90), ("b", 9), ("c", 1)) for i in range(n)]
    found = {trees[index].id for index in spread(trees, 5)}
    assert sorted(name[0] for name in found) == ["a", "a", "b", "b", "c"]
    turned = trees[::-1]
    assert found == {turned[index].id for index in spread(turned, 5)}
    assert found > {trees[index].id for index in spread(trees, 4)}, "more are the same ones and more"
    assert sorted(spread(trees, 1000)) == list(range(100)) and spread(trees, 0) == []


def test_what_was_left_out_is_shown_around_what_is_wrong():
    example = Example(
        id="1", system=None, turns=[Turn(role="user", content="Why?")], chosen=f"{'x ' * 400}</s> y", rejected=["No."]
    )
    shown = show_left_out("special_token", 3, "first ...", Look(colour=False), example=example, special=["</s>"])
    assert shown.startswith("left out as special_token: 3\n") and "</s> y" in shown
    assert all(len(line) <= 100 for line in shown.split("\n"))
