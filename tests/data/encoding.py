"""Encoding of a list of examples, for tests that are about its result."""

from multifaceted.data import encode as encoding
from multifaceted.data.examples import store_examples
from multifaceted.data.tokenize import Limits, Overlong


def encode(
    examples, tokenizer, *, max_length, bad, max_tokens=None, overlong=Overlong.DROP, with_rejected=True, **others
):
    """Examples in memory, encoded."""
    limits = Limits(max_length=max_length, max_tokens=max_tokens, overlong=overlong)
    return encoding.encode(store_examples(examples), tokenizer, limits, with_rejected=with_rejected, bad=bad, **others)
