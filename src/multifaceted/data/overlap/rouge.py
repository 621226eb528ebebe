"""ROUGE-L (Lin 2004): how the Janus paper measures what texts share, and how far the preferences of a prompt lie apart.

The score is the F1 of the package rouge-score without a stemmer: words of the letters a-z and the digits, lower case,
and the longest common subsequence of both. Texts in other scripts have no such words and score 0.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from multifaceted.data.overlap.normalise import normalise
from multifaceted.records import Example, Prompt

MOST_OF_INSTRUCTION = 10
"""Examples of an instruction that are compared: those with the smallest hashes of what they state. Multifaceted has
three; where thousands share one, the work would grow with the square of their number."""
_WORD = re.compile("[a-z0-9]+")


class _Numbers(dict[str, int]):
    """Words as numbers, in the order in which they come."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number

    def of(self, text: str) -> list[int]:
        """The words of a text."""
        return [self[word] for word in _WORD.findall(text.lower())]


def rouge_l(one: str, other: str) -> float:
    """The F1 of two texts, between 0 and 1; it does not matter which is the reference.

    >>> rouge_l("Rain is water.", "Water is rain")
    0.3333333333333333
    """
    numbers = _Numbers()
    return _f1(numbers.of(one), numbers.of(other))


def _f1(one: Sequence[int], other: Sequence[int]) -> float:
    length: int = LCSseq.similarity(one, other)
    return 2 * length / (len(one) + len(other)) if length else 0.0  # 2PR / (P + R) of P = length / len(other), R alike


@dataclass(kw_only=True, slots=True)
class SystemMessageOverlap:
    """What system messages of training share with those of a bench; None where there is nothing to compare.

    Attributes:
        mean: of all scores.
        maximum: of the scores of one bench message with the messages of one training instruction the greatest, on
            average.
        highest: of all scores the greatest.
        scores: how many.
        instructions: of training, how many were compared.
        messages: of the bench, likewise.
    """

    mean: float | None
    maximum: float | None
    highest: float | None
    scores: int
    instructions: int
    messages: int


def system_message_overlap(
    examples: Sequence[Example], prompts: Sequence[Prompt], *, instructions: int = 1000, messages: int = 1000
) -> SystemMessageOverlap:
    """ROUGE-L of the system messages of training with those of a bench (arXiv 2405.17977, appendix on the bench).

    The paper gives 0.17 on average and a maximum of 0.28 over the three messages of an instruction, and does not say of
    which pairs. Here each message of the bench is compared with all messages of each instruction, at most
    `MOST_OF_INSTRUCTION`.

    Args:
        instructions, messages: most instructions of training and messages of the bench. Of more, those with the
            smallest hashes are taken, which neither a seed nor the order of the rows changes.
    """
    numbers = _Numbers()
    asked = {_hash(prompt.system): numbers.of(prompt.system) for prompt in prompts if prompt.system}
    bench = [asked[key] for key in heapq.nsmallest(messages, asked)]
    groups = [
        [numbers.of(text) for index in rows if (text := examples[index].system)]
        for rows in _by_instruction(examples, instructions)
    ]
    groups = [group for group in groups if group]
    size = dict(instructions=len(groups), messages=len(bench))
    if not bench or not groups:
        return SystemMessageOverlap(mean=None, maximum=None, highest=None, scores=0, **size)
    train = list(itertools.chain.from_iterable(groups))
    lengths = cdist(bench, train, scorer=LCSseq.similarity, workers=-1, dtype=np.int32)
    total = np.add.outer([len(each) for each in bench], [len(each) for each in train])
    scores = 2 * lengths / np.maximum(total, 1)  # [messages, messages of training]
    starts = np.cumsum([0, *map(len, groups[:-1])])
    return SystemMessageOverlap(
        mean=float(scores.mean()),
        maximum=float(np.maximum.reduceat(scores, starts, axis=1).mean()),
        highest=float(scores.max()),
        scores=scores.size,
        **size,
    )


@dataclass(kw_only=True, slots=True)
class PreferenceDiversity:
    """How alike the preferences of one instruction are within a dimension: the lower, the more diverse.

    Attributes:
        mean: of all scores; None where there are none.
        by_dimension: likewise.
        scores: how many.
        instructions: how many have any.
    """

    mean: float | None
    by_dimension: dict[str, float]
    scores: int
    instructions: int


def preference_diversity(examples: Sequence[Example], *, instructions: int = 10_000) -> PreferenceDiversity:
    """ROUGE-L of every two descriptions of one dimension that `MOST_OF_INSTRUCTION` examples of an instruction state.

    Of three system messages with four dimensions that is 12 scores an instruction (arXiv 2405.17977, appendix on the
    collection: 0.21 on average, 0.25 in the dimension where it is greatest).

    Args:
        instructions: most instructions; see `system_message_overlap`.
    """
    scores: defaultdict[str, list[float]] = defaultdict(list)
    counted = 0
    for rows in _by_instruction(examples, instructions):
        before = sum(map(len, scores.values()))
        numbers = _Numbers()
        stated: defaultdict[str, list[list[int]]] = defaultdict(list)
        for index in rows:
            for preference in examples[index].preferences:
                stated[preference.dimension].append(numbers.of(preference.description))
        for dimension, descriptions in stated.items():
            scores[dimension] += itertools.starmap(_f1, itertools.combinations(descriptions, 2))
        counted += sum(map(len, scores.values())) > before
    every = list(itertools.chain.from_iterable(scores.values()))
    return PreferenceDiversity(
        mean=float(np.mean(every)) if every else None,
        by_dimension={name: float(np.mean(values)) for name, values in sorted(scores.items()) if values},
        scores=len(every),
        instructions=counted,
    )


def _by_instruction(examples: Sequence[Example], most: int) -> list[list[int]]:
    """The indices of the examples of each instruction, a few of them: of those with the smallest hashes, in order."""
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[_hash("\n".join(turn.content for turn in example.turns))].append(index)
    return [_some(examples, groups[key]) for key in heapq.nsmallest(most, groups)]


def _some(examples: Sequence[Example], rows: list[int]) -> list[int]:
    """Few of these rows, whatever their order."""
    if len(rows) <= MOST_OF_INSTRUCTION:
        return rows

    def place(index: int) -> bytes:
        example = examples[index]
        return _hash("\n".join([example.system or "", *(value.description for value in example.preferences)]))

    return heapq.nsmallest(MOST_OF_INSTRUCTION, rows, key=place)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
