"""The template: one chat template string, which trains, evaluates and is exported with the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerBase

from multifaceted.records import Example, messages_of

TEMPLATES = Path(__file__).parent / "templates"
OWN = "own"


def template_names() -> list[str]:
    """Templates that ship with the package, and "own" for the one that the tokenizer brings."""
    return [*sorted(path.stem for path in TEMPLATES.glob("*.jinja")), OWN]


def set_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give the tokenizer a template by name.

    Raises:
        ValueError: there is no such template, "own" was asked of a tokenizer without one, or the tokenizer ends a
            turn with another token than the template.
    """
    if name == OWN:
        if not tokenizer.chat_template:
            raise ValueError(f"data.template=own, but the tokenizer brings no chat template; choose {template_names()}")
        return
    path = TEMPLATES / f"{name}.jinja"
    if not path.exists():
        raise ValueError(f"data.template={name!r} does not exist; choose one of {', '.join(template_names())}")
    template = path.read_text(encoding="utf-8").rstrip("\n")
    markers = {"chatml": ("<|im_end|>",), "llama3": ("<|eot_id|>",)}.get(name, ())
    for marker in markers:
        if marker != tokenizer.eos_token:
            raise ValueError(
                f"data.template={name} ends answers with {marker!r}, but the tokenizer's EOS is {tokenizer.eos_token!r}"
            )
    tokenizer.chat_template = template


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
