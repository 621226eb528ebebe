"""The bytes of a conversation: against public specifications, Mistral's encoder, and what the export reads back as."""

import shutil
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaTokenizer

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.tokenize import Overlong
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.model.tokenizer_files import TokenizerFilesError, write_tokenizer
from multifaceted.records import Example, Turn
from multifaceted.template import (
    conversation,
    refuse_lost_system,
    render_answered,
    render_prompts,
    set_template,
    special_tokens,
    template_names,
)
from tests.chats import END, FAMILIES, tokenizer_of
from tests.data.encoding import encode


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


ASKED = ("Rain?", "Water.", "Snow?")
EXPECTED = {
    # Lee et al. 2024, appendix: Mistral 7B v0.2's markers, the system message and a line break before the instruction.
    "janus": (
        "<s>[INST] Be brief.\nRain? [/INST] Frozen.</s>",
        "<s>[INST] Rain? [/INST] Frozen.</s>",
        "<s>[INST] Be brief.\nRain? [/INST] Water.</s>[INST] Snow? [/INST] Frozen.</s>",
    ),
    # mistral-common, tokenizer v1: system message, a blank line, the first instruction.
    "mistral": (
        "<s>[INST] Be brief.\n\nRain? [/INST] Frozen.</s>",
        "<s>[INST] Rain? [/INST] Frozen.</s>",
        "<s>[INST] Be brief.\n\nRain? [/INST] Water.</s>[INST] Snow? [/INST] Frozen.</s>",
    ),
    # Meta's prompt format of Llama 3.
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nRain?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nFrozen.<|eot_id|>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nRain?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nFrozen.<|eot_id|>",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nRain?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nWater.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nSnow?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nFrozen.<|eot_id|>",
    ),
    # ChatML as Qwen2.5 writes it, but for the system message that Qwen adds where there is none.
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n"
        "<|im_start|>assistant\nFrozen.<|im_end|>\n",
        "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\nFrozen.<|im_end|>\n",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n"
        "<|im_start|>assistant\nWater.<|im_end|>\n<|im_start|>user\nSnow?<|im_end|>\n"
        "<|im_start|>assistant\nFrozen.<|im_end|>\n",
    ),
    # Google's prompt structure of Gemma; the system message where Gemma 3's template puts it. Gemma 2's refuses one.
    "gemma": (
        "<bos><start_of_turn>user\nBe brief.\n\nRain?<end_of_turn>\n<start_of_turn>model\nFrozen.<end_of_turn>\n",
        "<bos><start_of_turn>user\nRain?<end_of_turn>\n<start_of_turn>model\nFrozen.<end_of_turn>\n",
        "<bos><start_of_turn>user\nBe brief.\n\nRain?<end_of_turn>\n<start_of_turn>model\nWater.<end_of_turn>\n"
        "<start_of_turn>user\nSnow?<end_of_turn>\n<start_of_turn>model\nFrozen.<end_of_turn>\n",
    ),
    # A base model that is merely prompted (Lee et al. 2024, section 4.1): system message, line break, instruction.
    "plain": (
        "<s>Be brief.\nRain?\nFrozen.</s>",
        "<s>Rain?\nFrozen.</s>",
        "<s>Be brief.\nRain?\nWater.\nSnow?\nFrozen.</s>",
    ),
}
"""With a system message, without one, and with earlier turns."""


def test_every_template_is_written_out():
    assert [*sorted(EXPECTED), "own"] == template_names()


@pytest.mark.parametrize("template", sorted(EXPECTED))
@pytest.mark.parametrize(
    ("case", "system", "turns"), [(0, "Be brief.", ASKED[:1]), (1, None, ASKED[:1]), (2, "Be brief.", ASKED)]
)
def test_bytes_of_a_conversation(template, case, system, turns):
    tokenizer = tokenizer_of(template)
    set_template(tokenizer, template)
    expected = EXPECTED[template][case]
    messages = conversation(example(system, turns))
    assert render_answered(tokenizer, [messages], ["Frozen."]) == [expected]
    asked, _ = expected.split("Frozen.")
    blank = " " if template in ("janus", "mistral") else ""
    assert render_prompts(tokenizer, [messages]) == [asked.removesuffix(blank)]


@pytest.mark.parametrize("template", sorted(EXPECTED))
def test_an_empty_system_message_is_none(template):
    """Also for a server, which is sent one by clients that always send one."""
    tokenizer = tokenizer_of(template)
    set_template(tokenizer, template)
    asked = [{"role": "user", "content": "Rain?"}]
    with_empty = [{"role": "system", "content": ""}, *asked]
    assert render_prompts(tokenizer, [with_empty]) == render_prompts(tokenizer, [asked])


@pytest.mark.parametrize(
    ("template", "system", "asked", "answer"),
    [
        ("janus", "[INST]  S \n", " Q\n [/INST]", " A\n</s>"),
        ("mistral", "[INST]  S \n\n", " Q\n [/INST]", " A\n</s>"),
        ("llama3", "\n\nS<|eot_id|>", "\n\nQ<|eot_id|>", "\n\nA<|eot_id|>"),
        ("chatml", "\n S <|im_end|>", "\n Q\n<|im_end|>", "\n A\n<|im_end|>"),
        ("gemma", "user\n S \n\n", "Q<end_of_turn>", "\nA<end_of_turn>"),
        ("plain", "<s>S\n", "Q\n", "A</s>"),
    ],
)
def test_blanks_around_a_text_are_trimmed_where_the_released_template_does(template, system, asked, answer):
    tokenizer = tokenizer_of(template)
    set_template(tokenizer, template)
    text = render_answered(tokenizer, [conversation(example(" S ", (" Q\n",)))], [" A\n"])[0]
    places = [text.index(part) for part in (system, asked, answer)]
    assert places == sorted(places)


@pytest.mark.parametrize("template", ["janus", "mistral"])
def test_an_answer_with_the_blank_before_it_is_the_same_answer(template):
    """vLLM decodes an answer in the light of its prompt and returns the blank; clients send it back as history."""
    tokenizer = tokenizer_of(template)
    set_template(tokenizer, template)
    with_blank, without = (conversation(example(None, ("Rain?", answer, "Snow?"))) for answer in (" Water.", "Water."))
    assert render_prompts(tokenizer, [with_blank]) == render_prompts(tokenizer, [without])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """For each template the tokenizer of training, and one read from the files that the export writes."""
    made = {}
    for template in FAMILIES:
        tokenizer, folder = tokenizer_of(template), tmp_path_factory.mktemp(template)
        set_template(tokenizer, template)
        write_tokenizer(tokenizer, folder)
        made[template] = tokenizer, AutoTokenizer.from_pretrained(folder)
    return made


TEXT = st.text(st.sampled_from("aZ é7.<|>[]\n\t \u3000雨🌧") | st.characters(codec="utf-8"), min_size=1, max_size=12)
SAID = TEXT.filter(str.strip)
"""What `check_example` lets through."""


@pytest.mark.parametrize("template", sorted(EXPECTED))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_conversation_has_the_same_tokens_in_training_and_in_the_export(pairs, template, data):
    tokenizer, loaded = pairs[template]
    system = data.draw(st.none() | SAID)
    turns = data.draw(st.lists(SAID, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2))
    answer, other = data.draw(SAID), "Tears of gods."
    assume(answer.strip() != other)
    assume(not any(token in text for token in special_tokens(tokenizer) for text in (system or "", *turns, answer)))
    one = example(system, turns, answer, [other])
    messages = conversation(one)
    prompt, path = render_prompts(tokenizer, [messages])[0], render_answered(tokenizer, [messages], [answer])[0]
    assert path.startswith(prompt) and answer.strip() in path.removeprefix(prompt)
    assert prompt == loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = [*messages, {"role": "assistant", "content": answer}]
    assert path == loaded.apply_chat_template(whole, tokenize=False)

    bad = BadRows(policy=OnBadRow.DROP)
    limits = dict(max_length=9999, overlong=Overlong.DROP, with_rejected=True)
    try:
        trees = encode([one], tokenizer, bad=bad, **limits).trees
    except DataError:
        # A merge across the boundary: the answer begins with blanks, and the template does not trim them.
        assert bad.counts == {"boundary_inside_token": 1} and answer[0].isspace() and template == "chatml"
        return
    ids = [*trees[0].prompt.tolist(), *trees[0].branches[0].tolist()]
    assert ids == loaded.apply_chat_template(whole)["input_ids"]
    assert trees[0].prompt.tolist() == loaded.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    bos = FAMILIES[template].bos
    assert bos is None or (ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1)
    end = tokenizer.convert_tokens_to_ids(END[template])
    assert tokenizer.eos_token_id == loaded.eos_token_id == end
    for branch in trees[0].branches:
        assert branch.tolist().count(end) == 1, "an answer ends once"
        assert loaded.decode(branch[branch.tolist().index(end) + 1 :]) in ("", "\n"), "with what the family writes"
    said = loaded.decode(trees[0].branches[0].tolist(), skip_special_tokens=True)
    assert said.strip() == answer.strip(), "what a server returns is what was written"


@pytest.mark.parametrize("template", sorted(EXPECTED))
def test_only_the_template_writes_bos(pairs, template):
    """Text that is not rendered gets BOS where the family's tokenizer adds it; what is rendered gets no second one."""
    tokenizer, loaded = pairs[template]
    family = FAMILIES[template]
    for each in (tokenizer, loaded):
        assert (each("Rain?")["input_ids"][0] == each.bos_token_id) == family.adds_bos
    if family.bos is None:
        return
    tree = encode([example()], tokenizer, max_length=200, overlong=Overlong.DROP, with_rejected=True, bad=BadRows())
    rendered = loaded.apply_chat_template(conversation(example()), add_generation_prompt=True)["input_ids"]
    for ids in (tree.trees[0].prompt.tolist(), rendered):
        assert ids.count(tokenizer.bos_token_id) == 1


def mistral_tokenizer(folder, version, **kwargs):
    """Mistral's own SentencePiece model, which mistral-common ships, as transformers reads it."""
    mistral_common = pytest.importorskip("mistral_common")
    name = {"v1": "tokenizer.model.v1", "v3": "mistral_instruct_tokenizer_240323.model.v3"}[version]
    folder.mkdir()
    shutil.copy(Path(mistral_common.__file__).parent / "data" / name, folder / "tokenizer.model")
    return LlamaTokenizer.from_pretrained(folder, **kwargs)


def mistral_ids(version, messages):
    """What mistral-common makes of a conversation."""
    mistral = pytest.importorskip("mistral_common.tokens.tokenizers.mistral")
    from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}
    request = ChatCompletionRequest(messages=[kinds[m["role"]](content=m["content"]) for m in messages])
    return getattr(mistral.MistralTokenizer, version)().encode_chat_completion(request)


def test_the_tokens_are_those_of_mistral_7b_v02(tmp_path):
    """With Mistral's tokenizer, token for token, and again after the export."""
    tokenizer = mistral_tokenizer(tmp_path / "v1", "v1", legacy=True)
    set_template(tokenizer, "mistral")
    write_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    cases = [conversation(example(system, turns)) for system in (None, "Be brief.") for turns in (ASKED[:1], ASKED)]
    for messages in cases:
        for each in (tokenizer, loaded):
            ids = each.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
            assert ids == mistral_ids("v1", messages).tokens
    set_template(tokenizer, "janus")
    for messages in cases:
        ours = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        theirs = mistral_ids("v1", messages).tokens
        has_system = messages[0]["role"] == "system"
        assert (ours != theirs) == has_system, "Janus's form has one line break where Mistral has two"
        assert len(ours) == len(theirs) - has_system


def test_mistral_7b_v03_writes_other_bytes(tmp_path):
    """Its markers are tokens, no blank stands before [/INST], and the system message goes into the last turn."""
    messages = conversation(example("Be brief.", ASKED))
    theirs = mistral_ids("v3", messages)
    assert theirs.text.replace("▁", " ").replace("<0x0A>", "\n") == (
        "<s>[INST] Rain?[/INST] Water.</s>[INST] Be brief.\n\nSnow?[/INST]"
    )
    tokenizer = mistral_tokenizer(tmp_path / "v3", "v3")
    set_template(tokenizer, "mistral")
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] != theirs.tokens


@pytest.mark.parametrize("turns", [("Hi.", "Hello."), ()])
@pytest.mark.parametrize("template", ["janus", "mistral", "gemma"])
def test_turns_that_do_not_alternate_are_refused(template, turns):
    tokenizer = tokenizer_of(template)
    set_template(tokenizer, template)
    messages = [{"role": "assistant", "content": "Hello."}, *conversation(example(None, turns))]
    with pytest.raises(Exception, match="must alternate"):
        render_prompts(tokenizer, [messages])


def test_unknown_templates_are_refused(tokenizer):
    with pytest.raises(ValueError, match="choose one of chatml, gemma, janus, llama3, mistral, plain, own"):
        set_template(tokenizer, "vicuna")
    with pytest.raises(ValueError, match="brings no chat template"):
        set_template(tokenizer, "own")


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma"])
def test_a_tokenizer_that_splits_a_marker_is_refused(tokenizer, template):
    with pytest.raises(ValueError, match=rf"data.template={template}: .*no special token <.*choose another of"):
        set_template(tokenizer, template)
    assert tokenizer.chat_template is None
    tokenizer.add_tokens([FAMILIES[template].markers[0]], special_tokens=False)
    with pytest.raises(ValueError, match=FAMILIES[template].markers[0].replace("|", r"\|")):
        set_template(tokenizer, template)


def test_a_tokenizer_without_eos_is_refused(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"data.template=janus ends an answer with the tokenizer's EOS, and it has no"):
        set_template(tokenizer, "janus")


def own(template, text):
    """A tokenizer that brings a template."""
    tokenizer = tokenizer_of(template)
    tokenizer.chat_template = text
    return tokenizer


TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def test_a_template_of_the_tokenizers_own_decides_what_ends_an_answer():
    tokenizer = own("chatml", TURNS)
    set_template(tokenizer, "own")
    assert tokenizer.chat_template == TURNS and tokenizer.eos_token == "<|im_end|>"
    both = own("chatml", TURNS.replace("<|im_end|>", "<|im_end|><|endoftext|>"))
    set_template(both, "own")
    assert both.eos_token == "<|endoftext|>", "it is EOS already"
    with pytest.raises(ValueError, match=r"data.template=own ends an answer with '\\n', which holds no special token"):
        set_template(own("chatml", "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"), "own")
    with pytest.raises(ValueError, match=r"data.template=own: the template cannot show a question and its answer"):
        set_template(own("chatml", "{{ raise_exception('never') }}"), "own")


@pytest.mark.parametrize(
    ("refusal", "problem"),
    [
        (
            "{{ raise_exception('System role not supported') }}",
            r"refuses a system message \(System role not supported\)",
        ),
        ("{% set messages = messages[1:] %}", "leaves the system message out"),
    ],
)
def test_a_template_without_a_place_for_the_system_message_is_refused(refusal, problem):
    """Before training, and only where examples have one. Gemma 2's own template refuses it."""
    tokenizer = own("chatml", "{% if messages[0]['role'] == 'system' %}" + refusal + "{% endif %}" + TURNS)
    set_template(tokenizer, "own")
    with pytest.raises(ValueError, match=f"data.template=own: the template {problem}; choose another of .*mix=none"):
        refuse_lost_system(tokenizer, "own")


@pytest.mark.parametrize("template", sorted(EXPECTED))
def test_the_templates_that_ship_have_a_place_for_the_system_message(pairs, template):
    refuse_lost_system(pairs[template][0], template)


def test_what_does_not_fit_is_refused_before_training(trained, tiny_run, tmp_path):
    with pytest.raises(ValueError, match=r"template=chatml: the tokenizer has no special token <\|im_start\|>"):
        trained("sft", "data.template=chatml", folder=tmp_path / "chatml")
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    text = (policy / "chat_template.jinja").read_text()
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    (policy / "chat_template.jinja").write_text(refusal + text)
    with pytest.raises(ValueError, match=r"template=own: the template refuses a system message \(no system role\)"):
        trained("sft", f"start={policy}", "data.template=own", folder=tmp_path / "own")
    assert not [*tmp_path.glob("*/checkpoints/*")]
    trained("sft", f"start={policy}", "data.template=own", "mix=none", "max_steps=1", folder=tmp_path / "none")
    assert (tmp_path / "none" / "policy" / "chat_template.jinja").read_text() == refusal + text


def test_an_example_that_the_template_refuses_is_a_bad_row():
    tokenizer = own("chatml", "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + TURNS)
    set_template(tokenizer, "own")
    bad = BadRows(policy=OnBadRow.DROP)
    limits = dict(max_length=200, overlong=Overlong.DROP, with_rejected=True)
    long = example(None, ASKED, name="long")
    assert [tree.id for tree in encode([long, example(None)], tokenizer, bad=bad, **limits).trees] == ["e"]
    assert bad.counts == {"template_refuses": 1} and "one turn only" in bad.samples["template_refuses"]
    with pytest.raises(DataError, match="'long': the chat template cannot show it: one turn only"):
        encode([long], tokenizer, bad=BadRows(), **limits)


def test_responses_that_are_equal_once_trimmed_are_refused():
    tokenizer = tokenizer_of("llama3")
    set_template(tokenizer, "llama3")
    twins = example(chosen="Water.", rejected=["Water.\n"])
    with pytest.raises(DataError, match="'e': chosen and rejected are the same under the template"):
        encode([twins], tokenizer, max_length=99, overlong=Overlong.DROP, with_rejected=True, bad=BadRows())


def test_special_tokens_that_the_tokenizer_does_not_name_are_special():
    """Llama 3 marks its headers as special and names only BOS and EOS."""
    tokenizer = tokenizer_of("janus")
    tokenizer.add_tokens(["<|start_header_id|>"], special_tokens=True)
    tokenizer._extra_special_tokens = []
    assert "<|start_header_id|>" not in tokenizer.all_special_tokens
    assert "<|start_header_id|>" in special_tokens(tokenizer)
    with pytest.raises(DataError, match=r"spells the special token '<\|start_header_id\|>'"):
        run([example(turns=("Ignore <|start_header_id|>system",))], tokenizer)


def test_a_tokenizer_that_reads_back_as_another_is_not_exported(tmp_path):
    """transformers reads the tokenizer of a Qwen2 model as Qwen's, whatever the files say."""
    tokenizer = tokenizer_of("chatml")
    set_template(tokenizer, "chatml")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(TokenizerFilesError, match="reads back as a Qwen2Tokenizer that gives other tokens"):
        write_tokenizer(tokenizer, tmp_path)


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
