"""Proposals: what is alike meets, for every threshold, and the same in every process."""

import subprocess
import sys

import numpy as np
import pytest

from multifaceted.data.overlap.minhash import MISSED, MOST_COMPARED, NUM_HASHES, bands, near_kept, signatures
from multifaceted.data.overlap.shingles import jaccard


def pair(similarity, size, name):
    """Two sets of strings with a similarity of about that."""
    shared = round(2 * size * similarity / (1 + similarity))
    common = {f"{name}-both-{i}" for i in range(shared)}
    return [common | {f"{name}-{side}-{i}" for i in range(size - shared)} for side in "ab"]


@pytest.mark.parametrize("near", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_are_as_long_as_recall_allows(near):
    number, length = bands(near)
    assert number * length <= NUM_HASHES
    assert (1 - near**length) ** number <= MISSED or length == 1
    if length < NUM_HASHES:
        longer = length + 1
        assert (1 - near**longer) ** (NUM_HASHES // longer) > MISSED


@pytest.mark.parametrize("near", [0.5, 0.8, 0.95])
def test_pairs_at_the_threshold_are_found_and_random_ones_are_not_compared(near):
    sets = [each for i in range(1000) for each in pair(near + 0.01, 200, i)]
    compared = []

    def similarity(row, other):
        compared.append((row, other))
        return jaccard(sets[row], sets[other])

    found = list(near_kept(signatures(sets), near, similarity))
    assert len(found) >= 997
    assert all(row == other + 1 and other % 2 == 0 for row, other, _ in found)
    assert len(compared) <= 1000


def test_copies_are_compared_with_the_first_only():
    sets = [{f"{i % 3}-{j}" for j in range(50)} for i in range(300)]
    compared = []

    def similarity(row, other):
        compared.append(other)
        return 1.0

    found = list(near_kept(signatures(sets), 0.8, similarity))
    assert [row for row, _, _ in found] == list(range(3, 300))
    assert all(other == row % 3 for row, other, _ in found) and len(compared) == 297


def test_rows_of_one_template_take_linear_time_and_near_ones_among_them_are_found():
    template = {f"template-{i}" for i in range(80)}
    sets = [template | {f"{row}-{i}" for i in range(15)} for row in range(3000)]
    sets += [(sets[row] - {f"{row}-0"}) | {f"{row}-new"} for row in range(0, 3000, 15)]
    compared = []

    def similarity(row, other):
        compared.append(row)
        return jaccard(sets[row], sets[other])

    found = list(near_kept(signatures(sets), 0.8, similarity))
    assert len(found) >= 198 and all(row >= 3000 and other == (row - 3000) * 15 for row, other, _ in found)
    assert len(compared) <= MOST_COMPARED * len(sets)


def test_estimates_are_unbiased():
    found = signatures([each for i in range(300) for each in pair(0.6, 160, i)])
    agreement = (found[::2] == found[1::2]).mean(axis=1)
    expected = jaccard(*pair(0.6, 160, ""))
    assert agreement.mean() == pytest.approx(expected, abs=0.01)
    assert agreement.std() < 1.3 * np.sqrt(expected * (1 - expected) / NUM_HASHES)


def test_signatures_are_the_same_in_every_process():
    code = (
        "from multifaceted.data.overlap.minhash import signatures;"
        "print(signatures([{f'{i}-{j}' for j in range(60)} for i in range(20)]).tobytes().hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and len(outputs.pop()) == 20 * NUM_HASHES * 4 * 2 + 1


def test_no_sets_have_no_signatures():
    assert signatures([]).shape == (0, NUM_HASHES)
    assert list(near_kept(signatures([]), 0.8, lambda row, other: 1.0)) == []
