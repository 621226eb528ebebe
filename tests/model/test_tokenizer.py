"""What a tokenizer is asked for beside tokens: what ends a turn, and answers without the template's blank."""

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from multifaceted.model.tokenizer import ends_of_turn, hide_blank
from multifaceted.template import set_template
from tests.chats import FAMILIES, tokenizer_of

ASKED = [{"role": "user", "content": "Rain?"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "Water,  dear."}]


@pytest.mark.parametrize("template", sorted(FAMILIES))
def test_answers_are_decoded_as_they_were_written(template):
    tokenizer = tokenizer_of(template)
    set_template(tokenizer, template)
    answered = tokenizer.apply_chat_template(ANSWERED)["input_ids"]
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True)["input_ids"]
    answer = answered[len(prompt) :]
    hide_blank(tokenizer)
    once = tokenizer.backend_tokenizer.to_str()
    assert tokenizer.decode(answer, skip_special_tokens=True).rstrip("\n") == "Water,  dear."
    assert tokenizer.decode(answered).endswith(tokenizer.decode(answer).lstrip()), "inside a text nothing changes"
    hide_blank(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == once


def test_a_tokenizer_without_a_template_is_left_alone():
    tokenizer = tokenizer_of("janus")
    before = tokenizer.backend_tokenizer.to_str()
    hide_blank(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize(("named", "expected"), [(None, [1]), (5, [1, 5]), ([5, 1, 6], [1, 5, 6])])
def test_eos_comes_first_and_what_the_model_names_after_it(named, expected):
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = named
    tokenizer = tokenizer_of("janus")
    assert tokenizer.eos_token_id == 1 and ends_of_turn(model, tokenizer) == expected
