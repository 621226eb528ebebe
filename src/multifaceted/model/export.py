"""Export: a Hugging Face folder that any server loads, and its fingerprint."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from multifaceted.model.sharded import barrier, is_sharded, write_shards
from multifaceted.model.tokenizer import ends_of_turn
from multifaceted.model.tokenizer_files import write_tokenizer
from multifaceted.model.weights import hash_files
from multifaceted.record_files import put_in_place


def export_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str, *, is_first: bool = True
) -> None:
    """Write weights, tokenizer with its chat template, and the card; the folder appears whole or not at all.

    A sharded model is written by all ranks together; `is_first` is true on one of them.

    Raises:
        TokenizerFilesError: whoever loads the folder would get other tokens than training had.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    if is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    barrier()
    if is_sharded(model):
        write_shards(model, partial)
    if is_first:
        _write_rest(model, tokenizer, partial, card)
        shutil.rmtree(folder, ignore_errors=True)
        put_in_place(partial, folder)
    barrier()


def _write_rest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str) -> None:
    # No sampling settings: those are the server's or the request's.
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends_of_turn(model, tokenizer),
        pad_token_id=model.config.pad_token_id,
    )
    if is_sharded(model):
        shutil.rmtree(folder / "sharded")
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        if model.can_generate():
            generation.save_pretrained(folder)
    else:
        model.generation_config = generation
        model.save_pretrained(folder)
    write_tokenizer(tokenizer, folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def folder_fingerprint(folder: Path) -> str:
    """A hash of a model folder: weights, config, tokenizer, chat template, and which tokens end an answer."""
    names = {
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
        "chat_template.jinja",
    }
    return hash_files(
        *(path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors" or path.name in names)
    )
