"""Likelihoods are those of a plain pass over one text, whatever the batch; where a text begins is a token boundary."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig

from multifaceted.inference.likelihood import LikelihoodModel, Passage
from multifaceted.inference.requests import EngineError
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.template import set_template

TOLERANCE = 1e-4
TEXTS = ["The rain falls on the plain. Snow is water, and so is rain.", "You value rain. Why? Because it rains."] * 3
USER = [{"role": "system", "content": "You value rain."}, {"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module")
def tiny():
    """A causal model with weights large enough that tokens differ in probability."""
    tokenizer = train_tokenizer(TEXTS, 320)
    set_template(tokenizer, "janus")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    return LikelihoodModel(model=LlamaForCausalLM(config).eval(), tokenizer=tokenizer)


def scored(model, *passages):
    """Log-likelihoods and tokens in the order of the passages."""
    found = {each.id: each for each in model.score(passages)}
    return [(found[passage.id].logp, found[passage.id].tokens) for passage in passages]


@torch.no_grad()
def plainly(model, context, text):
    """A pass over one text alone, in fp64, a token after another: of the text's tokens behind the context's."""
    logps = model.model(input_ids=torch.tensor([context + text])).logits[0].double().log_softmax(-1)
    return sum(float(logps[len(context) + place - 1, token]) for place, token in enumerate(text))


def ids(model, text):
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


words = st.lists(st.sampled_from(["rain", "snow", "falls", "on", "plain.", "why?", "is"]), min_size=1, max_size=6)
passages = st.lists(st.tuples(st.none() | words, words), min_size=1, max_size=7)


@given(passages, st.sampled_from([1, 10_000, 2**28]), st.randoms())
@settings(max_examples=40)
def test_batch_order_and_padding_change_nothing(tiny, drawn, most_logits, random):
    bos = tiny.tokenizer.bos_token_id
    asked, expected = [], {}
    for number, (context, text) in enumerate(drawn):
        before, behind = " ".join(context or []), " ".join(text) if context is None else f" {' '.join(text)}"
        asked.append(Passage(id=str(number), context=before, text=behind))
        expected[str(number)] = (plainly(tiny, [bos, *ids(tiny, before)], ids(tiny, behind)), len(ids(tiny, behind)))
    random.shuffle(asked)
    for passage, (logp, tokens) in zip(asked, scored(replace(tiny, most_logits=most_logits), *asked), strict=True):
        assert logp == pytest.approx(expected[passage.id][0], abs=TOLERANCE) and tokens == expected[passage.id][1]


@given(words, words)
@settings(max_examples=20)
def test_a_text_is_its_beginning_and_what_follows(tiny, begin, end):
    """The chain rule: log p(a b) = log p(a) + log p(b | a)."""
    before, behind = " ".join(begin), f" {' '.join(end)}"
    whole, first, rest = scored(
        tiny,
        Passage(id="whole", text=before + behind),
        Passage(id="first", text=before),
        Passage(id="rest", context=before, text=behind),
    )
    assert whole[0] == pytest.approx(first[0] + rest[0], abs=TOLERANCE) and whole[1] == first[1] + rest[1]


def test_a_token_across_the_boundary_is_divided_and_said(tiny, caplog):
    assert len(ids(tiny, "rain")) == 1, "a token that lies across"
    with caplog.at_level(logging.WARNING):
        ((logp, tokens),) = scored(tiny, Passage(id="one", context="The ra", text="in falls"))
    context, text = ids(tiny, "The ra"), ids(tiny, "in falls")
    assert (context + text) != ids(tiny, "The rain falls")
    assert logp == pytest.approx(plainly(tiny, [tiny.tokenizer.bos_token_id, *context], text), abs=TOLERANCE)
    assert tokens == len(text) and "1 of 1 texts would share a token with their context" in caplog.text


def test_an_answer_is_scored_as_the_template_shows_it_without_its_end(tiny):
    prompt = tiny.tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True)
    answered = [*USER, {"role": "assistant", "content": "Because"}]
    shown = tiny.tokenizer.apply_chat_template(answered, tokenize=False).removesuffix("</s>")
    ((logp, tokens),) = scored(tiny, Passage(id="one", messages=USER, text="Because"))
    answer = ids(tiny, shown)[len(ids(tiny, prompt)) :]
    assert logp == pytest.approx(plainly(tiny, ids(tiny, prompt), answer), abs=TOLERANCE) and tokens == len(answer)
    other = [{"role": "system", "content": "You value snow."}, USER[1]]
    assert scored(tiny, Passage(id="one", messages=other, text="Because"))[0][0] != logp


def test_an_empty_text_has_no_tokens(tiny):
    asked = [
        Passage(id="a", text=""),
        Passage(id="b", context="Rain", text=""),
        Passage(id="c", messages=USER, text=""),
    ]
    assert scored(tiny, *asked) == [(0.0, 0)] * 3
    assert scored(tiny) == []


def test_a_tokenizer_without_bos_begins_with_eos_or_the_context(tiny):
    tokenizer = train_tokenizer(TEXTS, 320)
    tokenizer.bos_token = None
    bare = replace(tiny, tokenizer=tokenizer)
    alone, behind = scored(bare, Passage(id="a", text="Rain falls"), Passage(id="b", context="Snow", text=" falls"))
    assert alone[0] == pytest.approx(plainly(bare, [tokenizer.eos_token_id], ids(bare, "Rain falls")), abs=TOLERANCE)
    assert behind[0] == pytest.approx(plainly(bare, ids(bare, "Snow"), ids(bare, " falls")), abs=TOLERANCE)
    tokenizer.eos_token = None
    with pytest.raises(EngineError, match="neither BOS nor EOS"):
        scored(bare, Passage(id="a", text="Rain falls"))


def test_a_text_that_the_context_does_not_hold_is_refused_before_anything_is_computed(tiny):
    long = Passage(id="long-one", context="rain", text=" falls" * 80)
    stream = tiny.score([Passage(id="short", text="rain"), long])
    length = 1 + len(ids(tiny, "rain" + " falls" * 80))
    with pytest.raises(EngineError, match=rf"'long-one' has {length} tokens, .* context is 64"):
        next(stream)
    exact = Passage(id="exact", text=" falls" * (63 // len(ids(tiny, " falls"))))
    assert math.isfinite(scored(tiny, exact)[0][0])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] }}{% if messages[-1]['role'] == 'assistant' %}x{% endif %}", "does not show the"),
        ("{{ raise_exception('not today') }}", "refuses request 'one': not today"),
        (None, "no chat template"),
    ],
)
def test_a_template_that_cannot_show_the_answer_is_refused(tiny, template, message):
    tokenizer = train_tokenizer(TEXTS, 320)
    tokenizer.chat_template = template
    with pytest.raises(EngineError, match=message):
        scored(replace(tiny, tokenizer=tokenizer), Passage(id="one", messages=USER, text="Because"))


def test_damaged_weights_are_said(tiny):
    broken = LlamaForCausalLM(tiny.model.config).eval()
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    with pytest.raises(EngineError, match="log-likelihood of 'one' is nan"):
        scored(replace(tiny, model=broken), Passage(id="one", text="Rain"))


def test_a_reward_model_is_refused(tmp_path):
    LlamaConfig(architectures=["LlamaForSequenceClassification"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a reward model"):
        LikelihoodModel.load(tmp_path)


def test_an_encoder_is_refused(tmp_path):
    RobertaConfig(architectures=["RobertaForMaskedLM"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not load as a decoder that writes text"):
        LikelihoodModel.load(tmp_path)
