"""Export: a Hugging Face folder that any server loads, and its fingerprint."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def export_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str) -> None:
    """Write weights, tokenizer with its chat template, and the card; the folder appears whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=model.config.pad_token_id
    )
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def folder_fingerprint(folder: Path) -> str:
    """A hash of a model folder: weights, config, tokenizer and chat template."""
    digest = hashlib.sha256()
    names = {"config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "tokenizer_config.json"}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors" or path.name in names:
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
