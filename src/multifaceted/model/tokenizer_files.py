"""A tokenizer as files: readable by every release of transformers in use, and with the tokens of training."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from multifaceted.model.tokenizer import hide_blank

CONFIG = "tokenizer_config.json"
TRIAL = "In 2024, it's 12,345  words:\n\n\tdon't stop.\n"
"""Text in which tokenizers differ: digits, contractions, runs of blanks."""


class TokenizerFilesError(ValueError):
    """A tokenizer that reads back from its files as another one."""


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer with its chat template into a model's folder, and check what is read back.

    Answers are decoded without the blank that some templates write before them.

    Raises:
        TokenizerFilesError: whoever loads the folder would get other tokens than training had.
    """
    hide_blank(tokenizer)
    tokenizer.save_pretrained(folder)
    if tokenizer.is_fast:
        _name_what_all_know(folder / CONFIG)
    read = AutoTokenizer.from_pretrained(folder)
    if read.chat_template != tokenizer.chat_template or _tokens(read) != _tokens(tokenizer):
        raise TokenizerFilesError(
            f"the tokenizer of {folder} reads back as a {type(read).__name__} that gives other tokens than the"
            f" {type(tokenizer).__name__} in training; transformers chooses the class by the model's type, so train"
            " this tokenizer with another architecture"
        )


def _name_what_all_know(path: Path) -> None:
    """Spell a tokenizer's config as transformers 4 and 5 both read it.

    A class of its own, such as LlamaTokenizer, builds its splitting of text anew and loses what tokenizer.json says
    (`legacy`, which the first Mistral tokenizers need); the plain fast class reads the file as it is. Its newer name
    and `extra_special_tokens` as a list are not known to transformers 4.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[str], int | None]:
    """What must not change: tokens of a text before and after a special token, how it is split, and EOS."""
    end = tokenizer.eos_token or ""
    ids: list[int] = tokenizer(TRIAL + end + TRIAL, add_special_tokens=False)["input_ids"]
    backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    splitting = [str(backend.normalizer), str(backend.pre_tokenizer)] if backend else []
    return ids, splitting, tokenizer.eos_token_id
