"""Compares two arms of a study, seed by seed: margins on held-out pairs, and adherence on the same prompts.

python experiments/dpo_after_sft/measure.py multirun/dpo_after_sft alone then_dpo
"""

import sys
from pathlib import Path

import numpy as np
import torch

from multifaceted.data.batch import Batch
from multifaceted.data.batches import EvaluationBatches
from multifaceted.data.encode import Overlong, encode
from multifaceted.data.source import BadRows
from multifaceted.mini import world
from multifaceted.model.build import Dtype, PretrainedModel
from multifaceted.model.score import Scorer
from multifaceted.records import VERDICTS, read_jsonl

SPLIT = "unseen_combinations"
PAIRS_SEED = 100
"""No run was validated on these pairs."""


@torch.no_grad()
def margins(policy: Path) -> np.ndarray:
    """Log p(chosen) - log p(rejected), summed over tokens, of held-out pairs that differ in one dimension, by id."""
    source = PretrainedModel(name=str(policy), dtype=Dtype.FLOAT32)
    tokenizer = source.load_tokenizer([])
    pairs = [pair for pair in world.validation_pairs(500, PAIRS_SEED) if len(pair.contrast) == 1]
    encoded = encode(pairs, tokenizer, max_length=192, overlong=Overlong.DROP, with_rejected=True, bad=BadRows())
    scorer = Scorer(source.load_model(tokenizer, reward=False, max_length=192), reward=False).eval()
    batches = EvaluationBatches(trees=encoded.trees, batch=Batch(examples=16))
    found = {}
    for place in range(len(batches)):
        batch = batches[place]
        logps = scorer(batch.rows)
        found |= dict(zip(batch.ids, (logps[batch.pair_chosen] - logps[batch.pair_rejected]).tolist(), strict=True))
    return np.array([found[name] for name in sorted(found)])


def adherence(run: Path) -> np.ndarray:
    """Share of the stated preferences that each response of the split satisfies, in the order of the prompts."""
    (folder,) = (run / "eval").iterdir()
    stated = {p["id"]: {q["preference"] for q in p["preferences"]} for p in read_jsonl(folder / "prompts.jsonl")}
    rows = (row for row in read_jsonl(folder / VERDICTS) if row["split"] == SPLIT)
    return np.array([len(stated[row["id"]] & set(row["satisfied"])) / len(stated[row["id"]]) for row in rows])


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval of paired differences [seeds, items]; seeds are resampled, and items within them."""
    rng = np.random.default_rng(0)
    seeds, items = differences.shape
    means = [
        differences[rng.integers(seeds, size=seeds)][:, rng.integers(items, size=items)].mean() for _ in range(5000)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def main(root: Path, first: str, second: str) -> None:
    """Print a table over seeds and the paired differences."""
    seeds = sorted(int(path.name.rpartition("_")[2]) for path in root.glob(f"{second}_*"))
    by_arm = {}
    for arm in (first, second):
        runs = [root / f"{arm}_{seed}" for seed in seeds]
        by_arm[arm] = (np.stack([margins(r / "policy") for r in runs]), np.stack([adherence(r) for r in runs]))
    print("| seed |", " | ".join(f"{what}, {arm}" for what in ("margin", "adherence") for arm in by_arm), "|")
    for place, seed in enumerate(seeds):
        values = [by_arm[arm][part][place].mean() for part in (0, 1) for arm in by_arm]
        print(f"| {seed} |", " | ".join(f"{value:.3f}" for value in values), "|")
    for part, what in enumerate(("margin", "adherence")):
        mean, low, high = interval(by_arm[second][part] - by_arm[first][part])
        print(f"{what}: {second} - {first} = {mean:.4f} [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
