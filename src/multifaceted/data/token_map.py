"""`Dataset.map` from examples to tokens: in several processes where there are many, and kept by content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache as remember
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import BadRowError, BadRows
from multifaceted.data.cache import dataset_cache
from multifaceted.data.examples import ExampleDataset, to_example
from multifaceted.data.mix import Views
from multifaceted.data.tokenize import Limits, tokenize
from multifaceted.data.tokens import FEATURES, to_table
from multifaceted.record_files import alone_at
from multifaceted.template import render_answered

log = logging.getLogger(__name__)

BATCH = 1000
"""Examples that are tokenized together: lists of ids take nine times the memory of a tree's arrays."""
PARALLEL = 20_000
"""Examples from which on several processes pay."""
MAX_PROCESSES = 16
"""Each takes 0.4 GB."""
DIED = "subprocesses has abruptly died"
"""How `datasets` says that a process was killed."""


def take_problem(bad: BadRows, example_id: str, reason: str, problem: str) -> None:
    """Count an example that is at fault, or stop at it."""
    with bad.row(f"example {example_id!r}"):
        raise BadRowError(reason, problem)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenization:
    """The function that `Dataset.map` calls for each batch, in this process or in others."""

    tokenizer: PreTrainedTokenizerBase
    limits: Limits
    with_rejected: bool
    views: Views
    bad: BadRows

    def tokenized(self, examples: ExampleDataset, numbers: NDArray[np.int16], cache: Path | None) -> datasets.Dataset:
        """Return a data set with the columns of `tokens.FEATURES`, one row an example.

        Args:
            numbers: [examples], the number of each example's view.
        """
        fingerprint = self._fingerprint(examples, numbers)
        if cache is None:
            return self._map(examples, numbers, new_fingerprint=fingerprint)
        try:
            path = dataset_cache(cache) / f"cache-{fingerprint}.arrow"
            with alone_at(path):
                return self._from_cache(examples, numbers, fingerprint, path)
        except OSError as error:
            log.warning("tokens are not kept, so they take memory, and another run computes them again: %s", error)
            return self._map(examples, numbers, new_fingerprint=fingerprint)

    def _from_cache(
        self, examples: ExampleDataset, numbers: NDArray[np.int16], fingerprint: str, path: Path
    ) -> datasets.Dataset:
        place = {"new_fingerprint": fingerprint, "cache_file_name": str(path)}
        is_kept = any(path.parent.glob(f"{path.stem}*{path.suffix}"))
        try:
            found = self._map(examples, numbers, **place)
            if len(found) == len(examples):
                return found
            problem = f"it holds {len(found)} rows of {len(examples)}"
        except (OSError, pa.ArrowException) as error:
            if not is_kept:
                raise
            problem = str(error)
        log.warning("tokens are computed again: %s cannot be used: %s", path, problem)
        return self._map(examples, numbers, load_from_cache_file=False, **place)

    def _map(self, examples: ExampleDataset, numbers: NDArray[np.int16], **place: Any) -> datasets.Dataset:
        processes = min(MAX_PROCESSES, len(os.sched_getaffinity(0)))
        arguments = {
            "with_indices": True,
            "batched": True,
            "batch_size": BATCH,
            "features": FEATURES,
            "remove_columns": examples.dataset.column_names,
            "keep_in_memory": "cache_file_name" not in place,
            "fn_kwargs": {"numbers": numbers, "parent": os.getpid()},
            "desc": "tokenize",
            **place,
        }
        dataset = examples.dataset.with_format("arrow")
        try:
            # Examples in memory would be copied to every process.
            is_parallel = processes > 1 and len(examples) >= PARALLEL and dataset.cache_files
            with _same_environment():
                return dataset.map(self, **arguments, num_proc=processes if is_parallel else None)
        except RuntimeError as error:
            if DIED not in str(error):
                raise
            log.warning("a process that tokenized is gone, killed for memory perhaps; this one does the rest alone")
            return dataset.map(self, **arguments)

    def __call__(self, table: pa.Table, indices: list[int], numbers: NDArray[np.int16], parent: int) -> pa.Table:
        """Tokenize a batch of examples.

        Args:
            indices: where they are among all.
            parent: the process that waits for the result; without it another one ends.
        """
        if os.getpid() != parent != os.getppid():
            os._exit(1)
        examples = [to_example(row) for row in table.to_pylist()]
        names, own = self.views.names, [int(numbers[index]) for index in indices]
        shown = [[self.views.show(example, name) for name in names] for example in examples]
        rows = tokenize(
            [views[number] for views, number in zip(shown, own, strict=True)],
            self.tokenizer,
            self.limits,
            with_rejected=self.with_rejected,
            in_other_views=[views[:number] + views[number + 1 :] for views, number in zip(shown, own, strict=True)],
        )
        for example, row in zip(examples, rows, strict=True):
            if row.dropped is not None and row.problem is not None:
                take_problem(self.bad, example.id, row.dropped, row.problem)
        return to_table([example.id for example in examples], [names[number] for number in own], rows)

    def _fingerprint(self, examples: ExampleDataset, numbers: NDArray[np.int16]) -> str:
        """A hash of all that decides what the tokens are."""
        versions = {name: version(name) for name in ("datasets", "transformers", "tokenizers")}
        settings = [versions, asdict(self.limits), self.with_rejected, self.views.identity, _trial(self.tokenizer)]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update(_code())
        with tempfile.TemporaryDirectory() as name:
            self.tokenizer.save_pretrained(name)
            for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
                digest.update(path.name.encode() + path.read_bytes())
        digest.update(examples.fingerprint.encode() + numbers.tobytes())
        return digest.hexdigest()[:32]


@contextmanager
def _same_environment() -> Iterator[None]:
    """Undo what `datasets` does around several processes: it puts a copy in the place of `os.environ`."""
    environment, name = os.environ, "TOKENIZERS_PARALLELISM"
    before = environment.get(name)
    try:
        yield
    finally:
        os.environ = environment  # noqa: B003 - whoever holds the first one would see no change of the other
        environment.pop(name, None)
        if before is not None:
            environment[name] = before


@remember
def _code() -> bytes:
    """The code that a token passes on its way: this package, and what it stands on."""
    package = Path(__file__).parents[1]
    names = ("data/**/*.py", "mini/**/*.py", "mini/**/*.yaml", "template.py", "trees.py", "records.py")
    files = [path for name in names for path in package.glob(name)]
    return b"".join(path.read_bytes() for path in sorted(files))


def _trial(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template makes of a conversation, in which whatever else it depends on shows, such as the date."""
    try:
        return render_answered(tokenizer, [[{"role": "user", "content": "Hi."}]], ["Hi."])[0]
    except TemplateError as error:
        return str(error)
