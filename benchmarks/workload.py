"""Synthetic examples at the lengths of the Multifaceted collection: the same token ids for every system."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from benchmarks.job import SIZES, Job, Size

PAD, BOS, EOS = 0, 1, 2
FIRST_WORD = 3
"""Ids below it are special."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """A log-normal number of tokens, cut at both ends."""

    median: float
    sigma: float
    least: int
    most: int

    def sample(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Lengths, [number]: the quantiles in random order, so that a few examples too have the whole spread."""
        quantiles = [NormalDist().inv_cdf((i + 0.5) / number) for i in range(number)]
        values = np.exp(math.log(self.median) + self.sigma * np.array(quantiles))
        return rng.permutation(values.round().astype(int).clip(self.least, self.most))


PROMPT = Lengths(median=330, sigma=0.45, least=60, most=1000)
RESPONSE = Lengths(median=400, sigma=0.4, least=40, most=1000)
MAX_LENGTH = PROMPT.most + RESPONSE.most


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Token ids of a prompt, which begins with BOS, and of its responses, which end with EOS; the chosen one first."""

    prompt: np.ndarray
    responses: list[np.ndarray]


def make_examples(
    number: int, rejected: int, size: Size, *, most_tokens: int | None = None, seed: int = 0
) -> list[Example]:
    """Examples of random words.

    Args:
        most_tokens: of an example with all its responses; a longer one is shrunk in proportion.
    """
    rng = np.random.default_rng(seed)
    columns = [shape.sample(number, rng) for shape in (PROMPT, *[RESPONSE] * (1 + rejected))]
    examples = []
    for lengths in zip(*columns, strict=True):
        scale = min(1.0, (most_tokens or math.inf) / sum(lengths)) / size.divide_lengths
        prompt, *responses = [
            rng.integers(FIRST_WORD, size.vocab_size, max(2, int(length * scale)), dtype=np.int32) for length in lengths
        ]
        prompt[0] = BOS
        for response in responses:
            response[-1] = EOS
        examples.append(Example(prompt=prompt, responses=responses))
    return examples


def examples_of(job: Job) -> list[Example]:
    """The data set of a job, copies included."""
    return make_examples(job.examples, job.rejected, SIZES[job.size], most_tokens=job.most_tokens) * job.copies
