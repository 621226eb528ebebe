"""The template: one chat template string, which trains, evaluates and is exported with the tokenizer.

It belongs to no room: what a conversation looks like is the same in training and for every engine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from multifaceted.records import Example, messages_of

TEMPLATES = Path(__file__).parent / "templates"
OWN = "own"
KEY = "data.template"
"""The setting that names the template in training."""
MARKER = re.compile(r"<[|\w]+>")
"""How a shipped template spells a marker: a token of its own that begins or ends a turn."""

SYSTEM, QUESTION, ANSWER = "Say it plainly.", "What is rain?", "Water."
"""A conversation to try a template on."""


def shipped_templates() -> list[str]:
    """Templates that ship with the package."""
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def template_names() -> list[str]:
    """Templates that ship with the package, and "own" for the one that the tokenizer brings."""
    return [*shipped_templates(), OWN]


def set_template(tokenizer: PreTrainedTokenizerBase, name: str, key: str = KEY) -> None:
    """Give the tokenizer a template by name, and for EOS the token with which that template ends an answer.

    Base models need the latter: Qwen2.5's EOS is `<|endoftext|>`, while ChatML ends a turn with `<|im_end|>`. Gemma's
    instruct models do too: theirs is `<eos>`, and a turn ends with `<end_of_turn>`.

    Args:
        key: the setting that names the template, for messages.

    Raises:
        ValueError: there is no such template, "own" was asked of a tokenizer without one, the tokenizer lacks a token
            of the template, or an answer ends with no special token.
    """
    if name == OWN:
        if not tokenizer.chat_template:
            raise ValueError(f"{key}=own, but the tokenizer brings no chat template; choose {template_names()}")
    else:
        tokenizer.chat_template = _shipped(name, tokenizer, key)
    try:
        _end_answers(tokenizer, name, key)
    except TemplateError as error:
        raise ValueError(
            f"{key}={name}: the template cannot show a question and its answer ({error}); {_another(name)}"
        ) from error


def refuse_lost_system(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a template that has no place for a system message, where examples have one.

    Raises:
        ValueError: the template refuses the message or leaves it out; names the template and what to do.
    """
    try:
        text = render_prompts(tokenizer, [_trial(SYSTEM)])[0]
        problem = None if SYSTEM in text else "leaves the system message out"
    except TemplateError as error:
        problem = f"refuses a system message ({error})"
    if problem:
        raise ValueError(
            f"{KEY}={name}: the template {problem}; {_another(name)}, which states it in the first user turn"
            " or in a turn of its own, or train without system messages: mix=none"
        )


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Every token that text must not spell, with its id: Llama 3 names three of them and has 256."""
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    added = tokenizer.added_tokens_decoder.items()
    return {token: id for token, id in named if token} | {str(token): id for id, token in added if token.special}


def conversation(example: Example) -> list[dict[str, str]]:
    """The messages up to the answer, system message included."""
    return messages_of(example.system, example.turns)


def render_prompts(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[dict[str, str]]]) -> list[str]:
    """The bytes that the model is given before it answers, for each conversation."""
    texts = tokenizer.apply_chat_template(list(conversations), tokenize=False, add_generation_prompt=True)
    return cast(list[str], texts)


def render_answered(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[dict[str, str]]], answers: Sequence[str]
) -> list[str]:
    """The bytes of each conversation with its answer and the end of it."""
    turns = [
        [*messages, {"role": "assistant", "content": answer}]
        for messages, answer in zip(conversations, answers, strict=True)
    ]
    return cast(list[str], tokenizer.apply_chat_template(turns, tokenize=False))


def _shipped(name: str, tokenizer: PreTrainedTokenizerBase, key: str) -> str:
    """The text of a template that ships with the package, where the tokenizer has its tokens."""
    path = TEMPLATES / f"{name}.jinja"
    if not path.exists():
        raise ValueError(f"{key}={name!r} does not exist; choose one of {', '.join(template_names())}")
    template = path.read_text(encoding="utf-8").rstrip("\n")
    specials = special_tokens(tokenizer)
    missing = [marker for marker in dict.fromkeys(MARKER.findall(template)) if marker not in specials]
    if missing:
        raise ValueError(
            f"{key}={name}: the tokenizer has no special token {', '.join(missing)} and would read it as plain"
            f" text; {_another(name)}, or start from a model whose tokenizer has it"
        )
    if "eos_token" in template and tokenizer.eos_token is None:
        raise ValueError(f"{key}={name} ends an answer with the tokenizer's EOS, and it has none; set one")
    return template


def _end_answers(tokenizer: PreTrainedTokenizerBase, name: str, key: str) -> None:
    """Make EOS the token that ends an answer."""
    end = render_answered(tokenizer, [_trial()], [ANSWER])[0].rpartition(ANSWER)[2]
    specials = set(special_tokens(tokenizer).values())
    found = [token for token in tokenizer(end, add_special_tokens=False)["input_ids"] if token in specials]
    if not found:
        raise ValueError(
            f"{key}={name} ends an answer with {end!r}, which holds no special token: the model would never"
            f" learn to stop; {_another(name)}"
        )
    if tokenizer.eos_token_id not in found:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(found[0])


def _trial(system: str | None = None) -> list[dict[str, str]]:
    stated = [{"role": "system", "content": system}] if system else []
    return [*stated, {"role": "user", "content": QUESTION}]


def _another(name: str) -> str:
    return f"choose another of {', '.join(other for other in template_names() if other != name)}"
