"""What a policy in this process is given for a conversation: the text that its chat template makes of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from multifaceted.inference.requests import EngineError, Request, in_user_turn
from multifaceted.model.tokenizer import hide_blank
from multifaceted.template import render_prompts, set_template, shipped_templates

IN_USER = "engine.system_in_user=true states it in the first user turn"
"""What to do where a template has no place for a system message."""
AT_ONCE = 1000
"""Texts that are tokenized together: what a tokenizer gives of them takes many times the memory of arrays."""


def chat_tokenizer(folder: Path, template: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, with its own chat template or with one that ships with the package.

    Raises:
        EngineError: it has no chat template, or not the tokens of this one.
    """
    tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    if template is not None:
        try:
            set_template(tokenizer, template, key="engine.template")
        except ValueError as error:
            raise EngineError(f"{folder}: {error}") from error
    if not tokenizer.chat_template:
        raise EngineError(
            f"{folder} has no chat template, so there is no telling how to put a prompt to it. Name the one it was"
            f" trained with, engine.template=<{', '.join(shipped_templates())}>; plain is for a base model that is"
            " merely prompted (for a judge: judge.engine.template)"
        )
    hide_blank(tokenizer)
    return tokenizer


def tokens_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[array[int]]:
    """The tokens of each text, without special ones: a template has written BOS already, where there is one."""
    ids: list[array[int]] = []
    for begin in range(0, len(texts), AT_ONCE):
        part = tokenizer(list(texts[begin : begin + AT_ONCE]), add_special_tokens=False)["input_ids"]
        ids += (array("i", each) for each in cast("list[list[int]]", part))
    return ids


def rendered(tokenizer: PreTrainedTokenizerBase, request: Request, *, system_in_user: bool) -> str:
    """The text that the model continues.

    Raises:
        EngineError: the template refuses the conversation, or leaves its system message out.
    """
    messages = in_user_turn(request.messages) if system_in_user else list(request.messages)
    stated = [message["content"] for message in messages if message["role"] == "system"]
    try:
        text = render_prompts(tokenizer, [messages])[0]
    except TemplateError as error:
        remedy = f". If that is about the system message, {IN_USER}" if stated else ""
        raise EngineError(f"the model's chat template refuses request {request.shown!r}: {error}{remedy}") from error
    if any(system.strip() not in text for system in stated):
        raise EngineError(
            f"the model's chat template leaves the system message of request {request.shown!r} out; {IN_USER}"
        )
    return text
