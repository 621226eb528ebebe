"""What both sides train with: the same model, weights, tokenizer and hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.job import Size
from benchmarks.workload import BOS, EOS, FIRST_WORD, MAX_LENGTH, PAD

SEED = 0
WEIGHTS_SEED = 62228349977119
"""What our own code makes of `SEED` for the weights."""
LEARNING_RATE = 1e-5
ADAM_BETA2 = 0.95
CLIP_NORM = 1.0
DPO_BETA = 0.1
ORPO_LAMBDA = 0.1

SPECIAL = {PAD: "<pad>", BOS: "<s>", EOS: "</s>"}


def number_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the decimal spellings of their ids, for a peer that takes text only."""
    words = {name: i for i, name in SPECIAL.items()} | {str(i): i for i in range(FIRST_WORD, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[PAD]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[PAD], bos_token=SPECIAL[BOS], eos_token=SPECIAL[EOS]
    )


def text_of(ids: Iterable[int]) -> str:
    """What `number_tokenizer` turns back into `ids`."""
    return " ".join(SPECIAL.get(i, str(i)) for i in map(int, ids))


def model_config(size: Size) -> dict[str, Any]:
    """Arguments of MistralConfig beside vocabulary and special tokens. Mistral's own default is a window of 4,096."""
    return {**size.shape, "sliding_window": None, "max_position_embeddings": 2 * MAX_LENGTH}
