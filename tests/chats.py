"""A small tokenizer of each family of models, with the special tokens that its template needs."""

from dataclasses import dataclass, field

from tokenizers import Regex, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from multifaceted.model.tokenizer import train_tokenizer

TEXTS = [
    "You value brevity. What is rain? Water.\n\nAnd snow?\n\n\n  Frozen water, mostly.\n",
    "Be kind.\n- one\n- two\n\n    indented   twice\t\tand with tabs\n[INST] user assistant model system [/INST]",
] * 3


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
LINES_FIRST = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(
            Regex(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            behavior="isolated",
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
"""How Llama 3 splits text, and Qwen but for digits: line breaks stay together, also before a word."""


@dataclass(kw_only=True, slots=True)
class Family:
    """Special tokens as base models of a family name them; `adds_bos`: whether `tokenizer(text)` begins with BOS."""

    bos: str | None
    eos: str
    markers: list[str] = field(default_factory=list)
    adds_bos: bool = False
    splits: pre_tokenizers.PreTokenizer = GPT2


FAMILIES = {
    "janus": Family(bos="<s>", eos="</s>"),
    "mistral": Family(bos="<s>", eos="</s>", adds_bos=True),
    "llama3": Family(
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        markers=["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        adds_bos=True,
        splits=LINES_FIRST,
    ),
    "chatml": Family(bos=None, eos="<|endoftext|>", markers=["<|im_start|>", "<|im_end|>"], splits=LINES_FIRST),
    "gemma": Family(bos="<bos>", eos="<eos>", markers=["<start_of_turn>", "<end_of_turn>"], adds_bos=True),
    "plain": Family(bos="<s>", eos="</s>", adds_bos=True),
}
END = {
    **dict.fromkeys(("janus", "mistral", "plain"), "</s>"),
    **{"llama3": "<|eot_id|>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>"},
}
"""With what each template ends an answer."""


def tokenizer_of(template):
    """A byte-level BPE that has merges of blanks and line breaks, so that a boundary can fall inside a token."""
    family = FAMILIES[template]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(TEXTS, 420).backend_tokenizer,
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token="<pad>",
        extra_special_tokens=family.markers,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.backend_tokenizer.pre_tokenizer = family.splits
    if family.adds_bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, tokenizer.bos_token_id)]
        )
    return tokenizer
