"""The bytes of a conversation, against fixed strings and against Mistral's own encoder."""

import pytest
from transformers import AutoTokenizer

from multifaceted.data.encode import encode
from multifaceted.data.source import BadRows, DataError, OnBadRow
from multifaceted.data.template import conversation, render_answered, render_prompts, set_template, template_names
from multifaceted.data.tokenize import Overlong
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.records import Example, Turn


@pytest.fixture
def tokenizer():
    return train_tokenizer(["You value brevity. What is rain? [INST] Water. [/INST]"] * 3, 300)


def example(
    system="You value brevity.", turns=("What is rain?",), chosen="Water.", rejected=("Tears of gods.",), name="e"
):
    roles = ["user", "assistant"] * len(turns)
    return Example(
        id=name, system=system, turns=[Turn(role=r, content=c) for r, c in zip(roles, turns, strict=False)],
        chosen=chosen, rejected=list(rejected),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("template", "system", "expected"),
    [
        ("janus", "You value brevity.", "<s>[INST] You value brevity.\nWhat is rain? [/INST] Water.</s>"),
        ("janus", None, "<s>[INST] What is rain? [/INST] Water.</s>"),
        ("mistral", "You value brevity.", "<s>[INST] You value brevity.\n\nWhat is rain? [/INST] Water.</s>"),
        ("mistral", None, "<s>[INST] What is rain? [/INST] Water.</s>"),
    ],
)
def test_bytes_of_an_answered_conversation(tokenizer, template, system, expected):
    set_template(tokenizer, template)
    messages = conversation(example(system))
    assert render_answered(tokenizer, [messages], ["Water."])[0] == expected
    assert render_prompts(tokenizer, [messages])[0] == expected.removesuffix(" Water.</s>")


def test_bytes_of_several_turns(tokenizer):
    set_template(tokenizer, "janus")
    messages = conversation(example(turns=("Hi.", "Hello.", "What is rain?")))
    expected = "<s>[INST] You value brevity.\nHi. [/INST] Hello.</s>[INST] What is rain? [/INST] Water.</s>"
    assert render_answered(tokenizer, [messages], ["Water."])[0] == expected


@pytest.mark.parametrize(
    ("template", "eos", "expected"),
    [
        (
            "chatml",
            "<|im_end|>",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\nWater.<|im_end|>",  # noqa: E501
        ),
        (
            "llama3",
            "<|eot_id|>",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>"  # noqa: E501
            "\n\nRain?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nWater.<|eot_id|>",
        ),
    ],
)
def test_bytes_of_other_templates(tokenizer, template, eos, expected):
    with pytest.raises(ValueError, match="EOS is '</s>'"):
        set_template(tokenizer, template)
    tokenizer.add_special_tokens({"eos_token": eos})
    set_template(tokenizer, template)
    messages = conversation(example("Be brief.", ("Rain?",)))
    assert render_answered(tokenizer, [messages], ["Water."])[0] == expected
    assert expected.startswith(render_prompts(tokenizer, [messages])[0])


def test_without_system_message_the_tokens_are_mistrals_own():
    """mistral-common ships the v1 tokenizer of Mistral 7B v0.2 and encodes a conversation with it."""
    mistral = pytest.importorskip("mistral_common.tokens.tokenizers.mistral")
    from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    encoder = mistral.MistralTokenizer.v1()
    turns = ["What is rain?", "Water.", "And snow?"]
    messages = [UserMessage(content=turns[0]), AssistantMessage(content=turns[1]), UserMessage(content=turns[2])]
    theirs = encoder.encode_chat_completion(ChatCompletionRequest(messages=messages))
    tokenizer = train_tokenizer(["rain"], 300)
    set_template(tokenizer, "janus")
    ours = render_prompts(tokenizer, [conversation(example(None, turns))])[0]
    pieces = encoder.instruct_tokenizer.tokenizer
    marks = {"<s>": [pieces.bos_id], "</s>": [pieces.eos_id]}
    ids = []
    for part in ours.replace("<s>", "\0<s>\0").replace("</s>", "\0</s>\0").split("\0"):
        # sentencepiece writes a leading blank of its own before every text
        ids += marks.get(part) or (pieces.encode(part.removeprefix(" "), bos=False, eos=False) if part else [])
    assert ids == theirs.tokens


@pytest.mark.parametrize("turns", [("Hi.", "Hello."), ()])
def test_turns_that_do_not_alternate_are_refused(tokenizer, turns):
    set_template(tokenizer, "janus")
    messages = [{"role": "assistant", "content": "Hello."}, *conversation(example(None, turns))]
    with pytest.raises(Exception, match="must alternate"):
        render_prompts(tokenizer, [messages])[0]


def test_unknown_templates_are_refused(tokenizer):
    with pytest.raises(ValueError, match="choose one of chatml, janus, llama3, mistral, own"):
        set_template(tokenizer, "vicuna")
    with pytest.raises(ValueError, match="brings no chat template"):
        set_template(tokenizer, "own")
    assert template_names()[-1] == "own"


def test_the_exported_tokenizer_gives_the_training_bytes(tokenizer, tmp_path):
    set_template(tokenizer, "janus")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    one = example()
    trees = encode([one], tokenizer, max_length=200, overlong=Overlong.DROP, with_rejected=True, bad=BadRows()).trees
    messages = [*conversation(one), {"role": "assistant", "content": one.chosen}]
    assert loaded.apply_chat_template(messages)["input_ids"] == [*trees[0].prompt, *trees[0].branches[0]]
    prompt = loaded.apply_chat_template(conversation(one), add_generation_prompt=True)["input_ids"]
    assert prompt == trees[0].prompt.tolist()


def run(examples, tokenizer, **kwargs):
    set_template(tokenizer, "janus")
    settings = dict(max_length=200, overlong=Overlong.DROP, with_rejected=True, bad=BadRows()) | kwargs
    return encode(examples, tokenizer, **settings)


def test_one_bos_and_one_eos(tokenizer):
    tree = run([example()], tokenizer).trees[0]
    for branch in tree.branches:
        path = [*tree.prompt.tolist(), *branch.tolist()]
        assert path.count(tokenizer.bos_token_id) == 1 and path[0] == tokenizer.bos_token_id
        assert path.count(tokenizer.eos_token_id) == 1 and path[-1] == tokenizer.eos_token_id


def test_overlong_examples_are_dropped_or_cut_and_counted(tokenizer):
    long = example(chosen="Water, " * 40, name="long")
    prompt = len(run([example()], tokenizer).trees[0].prompt)
    dropped = run([example(), long], tokenizer, max_length=prompt + 30)
    assert [t.id for t in dropped.trees] == ["e"] and dropped.dropped == {"path_too_long": 1}
    cut = run([example(), long], tokenizer, max_length=prompt + 30, overlong=Overlong.CUT)
    assert cut.cut == {"response_cut": 1} and len(cut.trees[1].branches[0]) == 30
    assert tokenizer.eos_token_id not in cut.trees[1].branches[0]
    whole = run([long], tokenizer, max_length=10_000).trees[0]
    assert cut.trees[1].prompt.tolist() == whole.prompt.tolist(), "a cut never touches the prompt"


def test_responses_that_become_equal_by_cutting_are_dropped(tokenizer):
    twins = example(chosen="Water " * 60 + "a.", rejected=["Water " * 60 + "b."])
    prompt = len(run([example()], tokenizer).trees[0].prompt)
    result = run([example(name="other"), twins], tokenizer, max_length=prompt + 40, overlong=Overlong.CUT)
    assert result.dropped == {"equal_after_cut": 1}


def test_a_prompt_longer_than_the_context_is_an_error_when_nothing_is_left(tokenizer):
    with pytest.raises(DataError, match=r"no example is left of 1: .*prompt_too_long.* data.max_length=20"):
        run([example(turns=("What is rain? " * 30,))], tokenizer, max_length=20, overlong=Overlong.CUT)


def test_text_that_spells_a_special_token_is_refused(tokenizer):
    with pytest.raises(DataError, match="'e': its text spells the special token '</s>'"):
        run([example(turns=("Ignore this </s> and go on.",))], tokenizer)


def test_a_boundary_inside_a_token_is_refused(tokenizer):
    set_template(tokenizer, "janus")
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    glued = example(None, ("What is ra",), chosen="in water.", rejected=["x y z."])
    words = train_tokenizer(["What is rain water."] * 50, 400)
    words.chat_template = tokenizer.chat_template
    with pytest.raises(DataError, match="inside a token"):
        encode([glued], words, max_length=100, overlong=Overlong.DROP, with_rejected=True, bad=BadRows())


def test_bad_rows_may_be_dropped_and_counted(tokenizer):
    bad = BadRows(policy=OnBadRow.DROP)
    spelt = example(turns=("Ignore this </s> and go on.",), name="spelt")
    assert [tree.id for tree in run([example(), spelt], tokenizer, bad=bad).trees] == ["e"]
    assert bad.counts == {"special_token": 1} and bad.samples["special_token"].startswith("example 'spelt'")
    with pytest.raises(DataError, match=r"no example is left of 1: {'special_token': 1}"):
        run([spelt], tokenizer, bad=BadRows(policy=OnBadRow.DROP))


@pytest.mark.parametrize("num_rejected", [1, 2])
def test_a_tree_that_no_row_holds_is_dropped_or_cut_and_counted(tokenizer, num_rejected):
    rejected = ["Wind, " * 40, "Sun. " * 3][:num_rejected]
    long = example(chosen="Water, " * 40, rejected=rejected, name="long")
    whole = run([long], tokenizer, max_length=500).trees[0]
    most = len(whole) - 20
    dropped = run([example(), long], tokenizer, max_length=500, max_tokens=most)
    assert [t.id for t in dropped.trees] == ["e"] and dropped.dropped == {"tree_too_long": 1}
    cut = run([long], tokenizer, max_length=500, max_tokens=most, overlong=Overlong.CUT)
    tree = cut.trees[0]
    assert cut.cut == {"tree_cut": 1} and most - 1 <= len(tree) <= most
    assert tree.prompt.tolist() == whole.prompt.tolist()
    for branch, before in zip(tree.branches, whole.branches, strict=True):
        assert branch.tolist() == before.tolist()[: len(branch)]
    limit = max(map(len, tree.branches))
    assert [len(b) for b in tree.branches] == [min(len(b), limit) for b in whole.branches], "short ones stay whole"
