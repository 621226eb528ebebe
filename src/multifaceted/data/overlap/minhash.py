"""Pairs of sets that may be alike, proposed by MinHash and locality-sensitive hashing (Broder 1997; Indyk 1998).

A set becomes a signature of 128 numbers; two signatures agree in as many as the sets are alike, on average. Signatures
that agree in all numbers of a band meet in a bucket. What meets there is proposed, never more than that: the caller
says how alike two sets are.

Signatures are rensa's: 9 microseconds for 280 shingles on one core, where datasketch takes 230; no dependencies of its
own; MIT. Its index keeps Python objects, so buckets are sorted arrays here.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from rensa import RMinHash

NUM_HASHES = 128
MISSED = 1e-3
"""The most likely that two sets which are just alike enough never meet."""
MOST_IN_BUCKET = 200
MOST_COMPARED = 50
"""Rows of one template meet in buckets of thousands, alike but not enough. These bounds keep the time linear in the
number of rows, whatever they are. Rows that are alike beyond their template also meet in smaller buckets."""
_SEED = 0


def bands(near: float) -> tuple[int, int]:
    """How many bands of how many numbers: as long as they can be, because long ones propose little in vain.

    Two sets of similarity `s` meet with probability `1 - (1 - s**length) ** number`.

    >>> bands(0.8)
    (25, 5)
    """
    for length in range(NUM_HASHES, 1, -1):
        number = NUM_HASHES // length
        if (1 - near**length) ** number <= MISSED:
            return number, length
    return NUM_HASHES, 1


def signatures(sets: Sequence[AbstractSet[str]]) -> np.ndarray:
    """Signatures of sets that are not empty, uint32 [sets, 128]: by threads on all cores, the same in every process."""
    if not sets:
        return np.empty((0, NUM_HASHES), np.uint32)
    matrix = RMinHash.digest_matrix_from_token_sets([list(each) for each in sets], NUM_HASHES, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def near_kept(
    found: np.ndarray, near: float, similarity: Callable[[int, int], float]
) -> Iterator[tuple[int, int, float]]:
    """Rows that are as alike as `near` to an earlier row which is not among them itself.

    A row is compared with those that are kept only, so a thousand copies take a thousand comparisons; those first whose
    signatures agree most.

    Args:
        found: signatures, uint32 [rows, 128].
        similarity: of two rows, exactly.

    Yields:
        The row, one that is kept, and their similarity.
    """
    # Signatures of sets that are alike agree in fewer numbers than this once in thirty thousand times (4 sigma).
    least = near - 4 * math.sqrt(near * (1 - near) / NUM_HASHES)
    kept: defaultdict[int, list[int]] = defaultdict(list)
    for row, buckets in _meetings(found, near):
        candidates = np.array(sorted({other for bucket in buckets for other in kept[bucket]}), dtype=np.intp)
        agreement = (found[candidates] == found[row]).mean(axis=1)
        best = np.argsort(-agreement, kind="stable")[:MOST_COMPARED]
        for other in candidates[best][agreement[best] >= least].tolist():
            alike = similarity(row, other)
            if alike >= near:
                yield row, other, alike
                break
        else:
            for bucket in buckets:
                if len(kept[bucket]) < MOST_IN_BUCKET:
                    kept[bucket].append(row)


def _meetings(found: np.ndarray, near: float) -> Iterator[tuple[int, list[int]]]:
    """Rows that meet another anywhere, in order, each with the numbers of its buckets."""
    number, length = bands(near)
    rows, buckets, taken = [np.empty(0, np.intp)], [np.empty(0, np.intp)], 0
    for band in range(number):
        keys = _keys(found[:, band * length : (band + 1) * length])
        _, inverse, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(sizes[inverse] > 1)
        rows.append(shared)
        buckets.append(inverse[shared] + taken)
        taken += len(sizes)
    every, bucket = np.concatenate(rows), np.concatenate(buckets)
    order = np.argsort(every, kind="stable")
    every, bucket = every[order], bucket[order]
    starts = np.flatnonzero(np.diff(every, prepend=-1)).tolist()
    for start, end in itertools.pairwise([*starts, len(every)]):
        yield int(every[start]), bucket[start:end].tolist()


def _keys(band: np.ndarray) -> np.ndarray:
    """One number for each row of a band, uint64 [rows]; equal by chance they only propose in vain."""
    keys = np.zeros(len(band), np.uint64)
    for column in band.T:
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + column  # modulo 2**64
    return keys
