"""From bench files and training data to the instructions of a bench: checked first, then read, chosen, written."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.benches import Training, bench_named, read_bench
from multifaceted.data.benches.overlap import distinct, exact_overlaps
from multifaceted.data.dataset import Data
from multifaceted.data.locations import is_missing
from multifaceted.data.overlap.normalise import normalise
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.hub import push, require_hub
from multifaceted.record_files import RecordError, write_json, write_jsonl
from multifaceted.records import INSTRUCTIONS, SUMMARY, VERSION, Prompt
from multifaceted.synthesis.bench_instructions import REASONS, BenchInstructions
from multifaceted.synthesis.training import training_sets

log = logging.getLogger(__name__)

CARD = "README.md"


@dataclass(kw_only=True, slots=True)
class SynthesizeConfig:
    """Everything `synthesize.py` needs.

    Attributes:
        benches: a file, a folder or a data set of the hub for each source; one that is missing is read from the hub.
        training: files, folders or data sets of the hub whose instructions may not be chosen, in the shapes that
            `data=preference_files` reads: a prompt or a conversation a row.
        training_columns: our names of columns to theirs, where they differ; null for one that is not to be read.
        training_sets: by any name, training data of other shapes, such as trees or domains, as a run names it; what it
            trains on counts, and not what it holds out.
        on_bad_row: what happens to a row of a bench or of `training` that cannot be read.
        into: the results' folder; by default `outputs/<task>`.
        push_to_hub: repository of the hub, `<owner>/<name>`, that the results go to.
        overwrite: whether instructions that are already there, and others, may be replaced.
    """

    task: BenchInstructions
    benches: dict[str, Path] = field(default_factory=dict)
    training: list[Path] = field(default_factory=list)
    training_columns: dict[str, str | None] | None = None
    training_sets: dict[str, Data] = field(default_factory=dict)
    on_bad_row: OnBadRow = OnBadRow.RAISE
    into: Path | None = None
    overwrite: bool = False
    push_to_hub: str | None = None

    def __post_init__(self) -> None:
        for name in self.benches:
            if name not in self.task.sources:
                raise ValueError(f"benches.{name} is none of task.sources ({', '.join(self.task.sources)})")
        try:
            self.training_data()
        except ValueError as error:
            raise ValueError(f"training_{error}") from None

    def training_data(self) -> PreferenceFiles:
        """What reads `training`."""
        return PreferenceFiles(train_file=[*self.training], columns=self.training_columns or {})

    @property
    def folder(self) -> Path:
        """Where the results are."""
        return self.into or Path("outputs") / self.task.name


def run(config: SynthesizeConfig) -> dict[str, Any]:
    """Choose the instructions and write them; the same inputs give the same bytes.

    Returns:
        The summary: counts by `<source>/<reason>`, `shared/<source>+<source>`, `training/<reason>`; and `licences`, the
        terms of every source that gives an instruction, which hold for the bench.

    Raises:
        HubError: the results could not be pushed, or were not.
        DataError: files that are missing, all of them named; rows that cannot be read; training data of which none can;
            too few instructions.
        RecordError: the folder holds other instructions.
    """
    if config.push_to_hub is not None:
        require_hub(config.push_to_hub)
    _refuse_missing(config)
    summary: dict[str, Any] = {"version": VERSION}
    prompts = {name: _prompts(config, name, summary) for name in config.task.sources}
    texts = {name: [prompt.instruction for prompt in found] for name, found in prompts.items()}
    seen = _seen(config, distinct(text for found in texts.values() for text in found), summary)
    assembled = config.task.assemble(prompts, seen)
    for name, counts in assembled.counts.items():
        summary |= {f"{name}/{reason}": counts[reason] for reason in REASONS}
        if not counts["chosen"]:
            log.warning("%s gives no instruction: %s", name, dict(counts))
    overlaps = exact_overlaps(texts)
    summary |= {f"shared/{one}+{other}": number for (one, other), number in overlaps.items()}
    summary["chosen"] = len(assembled.instructions)
    summary["licences"] = _licences([name for name, counts in assembled.counts.items() if counts["chosen"]])
    _refuse_others(config, [asdict(instruction) for instruction in assembled.instructions])
    write_jsonl(config.folder / INSTRUCTIONS, assembled.instructions)
    write_json(config.folder / SUMMARY, summary)
    (config.folder / CARD).write_text(_card(summary), encoding="utf-8")
    if config.push_to_hub is not None:
        files = [INSTRUCTIONS, SUMMARY, CARD]
        address = push(config.push_to_hub, {"": config.folder}, repo_type="dataset", only=files)
        log.info("pushed to %s", address)
    return summary


def _card(summary: Mapping[str, Any]) -> str:
    """The card of the instructions; its head says to `load_dataset` which file has them."""
    lines = [
        *(
            "---",
            "configs:",
            "- config_name: default",
            f"  data_files: {INSTRUCTIONS}",
            "---",
            "# Instructions of a bench",
        ),
        f"\n{summary['chosen']} instructions of public benches, under their terms:\n",
    ]
    for name, terms in summary["licences"].items():
        training = terms["training"].replace("_", " ")
        lines.append(f"- {name}: licence {terms['licence']}; training on it: {training}. {terms['terms']}".rstrip())
    return "\n".join(lines) + "\n"


def _refuse_missing(config: SynthesizeConfig) -> None:
    """Name every file that is not there, before any is read."""
    problems = []
    for name in config.task.sources:
        try:
            bench_named(name).located(config.benches.get(name))
        except DataError as error:
            problems.append(f"{error} (benches.{name}=<path>), or leave it out of task.sources")
    problems += [f"training: {path} does not exist" for path in config.training if is_missing(path)]
    for name, data in config.training_sets.items():
        try:
            data.source.require_files()
        except DataError as error:
            problems.append(f"training_sets.{name}: {error}")
    if problems:
        raise DataError("\n  ".join(["what is to be read is not there:", *problems]))


def _licences(sources: Iterable[str]) -> dict[str, dict[str, str]]:
    """Under which terms the sources have their instructions; said as well."""
    benches = [bench_named(name) for name in sources]
    for bench in benches:
        level = logging.INFO if bench.training is Training.ALLOWED else logging.WARNING
        said = f"{bench.training.replace('_', ' ')}. {bench.terms}".rstrip()
        log.log(level, "instructions of %s: licence %s; training on them: %s", bench.name, bench.licence, said)
    return {
        bench.name: {"licence": bench.licence, "training": bench.training.value, "terms": bench.terms}
        for bench in benches
    }


def _prompts(config: SynthesizeConfig, name: str, summary: dict[str, Any]) -> list[Prompt]:
    """The prompts of a source; what was read and left out goes to `summary`."""
    bad = BadRows(policy=config.on_bad_row, option="on_bad_row")
    prompts = read_bench(name, config.benches.get(name), bad, f"benches.{name}")
    summary[f"{name}/read"] = len(prompts)
    _report(bad, name, summary)
    return prompts


def _seen(config: SynthesizeConfig, wanted: Collection[str], summary: dict[str, Any]) -> set[str]:
    """Those of `wanted` that the training data has, normalised; what was read and left out goes to `summary`."""
    bad = BadRows()
    seen = set()
    summary["training/read"] = 0
    for part in training_sets(config.training, config.training_data(), config.on_bad_row, config.training_sets):
        for text in part.said():
            summary["training/read"] += 1
            normalised = normalise(text)
            if normalised in wanted:
                seen.add(normalised)
        bad.add(part.bad)
    _report(bad, "training", summary)
    return seen


def _report(bad: BadRows, part: str, summary: dict[str, Any]) -> None:
    bad.report(part)
    summary |= {f"{part}/left_out/{reason}": number for reason, number in sorted(bad.counts.items())}


def _refuse_others(config: SynthesizeConfig, instructions: list[dict[str, object]]) -> None:
    """Refuse to replace instructions by others: system messages may already have been written for them."""
    path, card = config.folder / INSTRUCTIONS, config.folder / CARD
    if config.overwrite:
        return
    if card.exists() and not path.exists():
        raise RecordError(f"{card} is there and would be replaced; write into another folder with into=...")
    if not path.exists():
        return
    if path.read_text(encoding="utf-8") != "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in instructions):
        raise RecordError(
            f"{path} holds other instructions; write into another folder with into=..., or replace them with"
            " overwrite=true"
        )
