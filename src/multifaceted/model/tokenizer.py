"""Tokenizers: a byte-level BPE trained on texts, and the few checks any tokenizer must pass."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE. Every byte is in its alphabet, so no text has an unknown token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


SPARE = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|fim_pad|>", "<|endoftext|>")
"""Tokens that well-known vocabularies keep in reserve."""


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A padding token that is not EOS: a reward read "at the last token that is not padding" would miss EOS otherwise.

    Raises:
        ValueError: the tokenizer has no token to spare.
    """
    vocabulary = tokenizer.get_vocab()
    spare = [vocabulary[token] for token in SPARE if token in vocabulary]
    for candidate in (tokenizer.pad_token_id, tokenizer.unk_token_id, *spare):
        if candidate is not None and candidate != tokenizer.eos_token_id:
            return int(candidate)
    raise ValueError(
        "the tokenizer has neither a padding token nor an unknown token besides EOS; set tokenizer.pad_token"
    )


def ends_of_turn(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: EOS, and what else the model's generation config names, such as Qwen's two."""
    named = model.generation_config.eos_token_id if model.can_generate() else None
    others = named if isinstance(named, list) else [named]
    return [end for end in dict.fromkeys([tokenizer.eos_token_id, *others]) if end is not None]


def hide_blank(tokenizer: PreTrainedTokenizerBase) -> None:
    """Where the chat template writes a blank before an answer, have the tokenizer decode an answer without it.

    SentencePiece tokenizers do so, byte-level ones do not: every server would return what no answer in training had.
    """
    if not (tokenizer.chat_template and tokenizer.is_fast):
        return
    asked = [{"role": "user", "content": "What is rain?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "Water."}], tokenize=False)
    answer = tokenizer(answered.removeprefix(prompt), add_special_tokens=False)["input_ids"]
    if tokenizer.decode(answer).startswith(" "):
        backend = tokenizer.backend_tokenizer
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Strip(content=" ", left=1, right=0)])
