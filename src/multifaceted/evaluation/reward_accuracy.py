"""How often a reward model prefers what people, or rules, chose; by source and by what the responses differ in."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from multifaceted.data.bad_rows import DataError
from multifaceted.data.dataset import Data, Part, counts
from multifaceted.data.mix import Mix
from multifaceted.evaluation.folder import Subject, opened
from multifaceted.evaluation.identity import Evaluated
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.inference.rewards import RewardModel
from multifaceted.model.export import folder_fingerprint
from multifaceted.model.folder import check_model_folder, refuse_policy
from multifaceted.record_files import append_jsonl, drop_half_a_line, read_json, read_records, write_json
from multifaceted.records import REWARDS, RUN, SCORES, Estimate, Example, PairRewards, Scores
from multifaceted.template import OWN
from multifaceted.trees import TokenTree

log = logging.getLogger(__name__)

ALL = "all"
"""The split of every source together."""


@dataclass(kw_only=True, slots=True)
class RewardAccuracy:
    """Preference pairs and groups, as validation in training reads them.

    Attributes:
        data: whose held-out examples these are, and how long they may be. The template is the reward model's own.
    """

    data: Data

    def __post_init__(self) -> None:
        if self.data.template != OWN:
            raise ValueError(f"data.template is {self.data.template}; a reward model brings its own: template={OWN}")

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return f"reward_accuracy_{type(self.data.source).__name__.lower()}"

    def examples(self, seed: int) -> Part:
        """The held-out pairs and groups, checked.

        Raises:
            DataError: a file that is not there, bad rows, or none is left.
        """
        return self.data.held_out(seed, option="task.data.on_bad_row")


def measure(task: RewardAccuracy, reward_model: Path, folder: Path, seed: int, *, overwrite: bool = False) -> Scores:
    """Reward every response and write `rewards.jsonl`, then `scores.json`; what is there already is read.

    Raises:
        ValueError: `reward_model` holds none.
        DataError: there are no pairs.
        RecordError: the folder holds rewards of others.
    """
    refuse_policy(str(reward_model), check_model_folder(reward_model).get("architectures"))
    try:
        return _measure(task, reward_model, folder, seed, overwrite=overwrite)
    except DataError as error:
        raise DataError(f"{error} (here the settings of data are task.data...)") from None


def _measure(task: RewardAccuracy, reward_model: Path, folder: Path, seed: int, *, overwrite: bool) -> Scores:
    part = task.examples(seed)
    limits = {"max_length": task.data.max_length, "overlong": task.data.overlong.value}
    content = json.dumps([limits, *(asdict(example) for example in part.examples)])
    who = Evaluated(path=str(reward_model), fingerprint=folder_fingerprint(reward_model), folder=reward_model)
    identity = {
        "policy": who.fingerprint,
        "seed": seed,
        "pairs": hashlib.sha256(content.encode()).hexdigest()[:16],
    }
    with opened(folder, Subject(who=who, identity=identity, seed=seed), overwrite=overwrite) as record:
        if "rows" not in record:
            record["rows"] = _reward(task.data, part, reward_model, folder)
            write_json(folder / RUN, record)
        return rescore_rewards(folder, task.name)


def rescore_rewards(folder: Path, name: str) -> Scores:
    """Compute `scores.json` from the files beside it, and write it; no model is asked.

    Raises:
        RecordError: a file is missing or broken.
    """
    run = read_json(folder / RUN)
    dropped = sum(number for key, number in run["rows"].items() if key.startswith("dropped/"))
    policy = {"path": run["policy_path"], "fingerprint": run["policy"]}
    scores = Scores(
        task=name, policy=policy, metrics=accuracy_metrics(read_records(folder / REWARDS, PairRewards), dropped)
    )
    write_json(folder / SCORES, scores)
    return scores


def accuracy_metrics(rows: Sequence[PairRewards], dropped: int = 0) -> dict[str, Estimate]:
    """`<source>/accuracy` and `<source>/margin`, also by dimension, and the same of all sources.

    Accuracy is the share of pairs in which the chosen response has the higher reward, ties counting half; a group
    counts as the mean over its pairs. An example counts for every dimension in which its responses differ. Intervals
    resample prompts.

    Args:
        dropped: examples that got no reward; unscored, of all sources.
    """
    rows = sorted(rows, key=lambda row: row.id)  # they were written in the order in which they were rewarded
    groups = {ALL: rows} | {row.source: [r for r in rows if r.source == row.source] for row in rows}
    metrics: dict[str, Estimate] = {}
    for source, group in groups.items():
        split = source.replace("/", "-")
        dimensions = dict.fromkeys(name for row in group for name in row.contrast)
        for name, value in {"accuracy": _accuracy, "margin": _margin}.items():
            unscored = [None] * (dropped if source == ALL else 0)
            clusters = [row.prompt for row in group] + [f"dropped {place}" for place in range(len(unscored))]
            metrics[f"{split}/{name}"] = bootstrap_mean([*map(value, group), *unscored], clusters=clusters)
            for dimension in dimensions:
                differing = [row for row in group if dimension in row.contrast]
                metrics[f"{split}/{name}/{dimension}"] = bootstrap_mean(
                    list(map(value, differing)), clusters=[row.prompt for row in differing]
                )
    return metrics


def _accuracy(row: PairRewards) -> float:
    return float(np.mean([1.0 if row.chosen > other else 0.5 * (row.chosen == other) for other in row.rejected]))


def _margin(row: PairRewards) -> float:
    return row.chosen - float(np.mean(row.rejected))


def _reward(data: Data, part: Part, reward_model: Path, folder: Path) -> dict[str, int]:
    """Reward what has none yet, each example written once all of its responses have one; returns counts of rows."""
    path = folder / REWARDS
    drop_half_a_line(path)
    model = RewardModel.load(reward_model)
    encoded = data.encode(part, Mix(), 0, model.tokenizer, with_rejected=True)
    known = {row.id for row in read_records(path, PairRewards)}
    trees = [tree for tree in encoded.trees if tree.id not in known]
    prompts = {example.id: _prompt(example) for example in part.examples}
    for _ in append_jsonl(path, _rewarded(model, trees, prompts)):
        pass
    found = counts(encoded)
    lost = {key: number for key, number in found.items() if key.startswith(("dropped/", "cut/"))}
    for key, number in lost.items():
        log.warning("%s: %d examples", key, number)
    return {"examples": len(encoded.trees), **lost}


def _rewarded(model: RewardModel, trees: Sequence[TokenTree], prompts: Mapping[str, str]) -> Iterator[PairRewards]:
    owners = [(place, branch) for place, tree in enumerate(trees) for branch in range(len(tree.branches))]
    paths = [[*trees[place].prompt.tolist(), *trees[place].branches[branch].tolist()] for place, branch in owners]
    found: list[dict[int, float]] = [{} for _ in trees]
    for index, reward in model.of_tokens(paths):
        place, branch = owners[index]
        found[place][branch] = reward
        tree, rewards = trees[place], found[place]
        if len(rewards) == len(tree.branches):
            chosen, *rejected = (rewards[number] for number in range(len(rewards)))
            yield PairRewards(
                id=tree.id,
                source=tree.source,
                contrast=list(tree.dimensions),
                prompt=prompts[tree.id],
                chosen=chosen,
                rejected=rejected,
            )


def _prompt(example: Example) -> str:
    turns = [[turn.role, turn.content] for turn in example.turns]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()[:16]
