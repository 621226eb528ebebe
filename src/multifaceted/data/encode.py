"""From examples to token trees: in several processes where there are many, and kept by content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.tokenize import Encoded, Limits, Overlong, tokenize
from multifaceted.data.tokens import StoredTrees, write_trees
from multifaceted.record_files import RecordError, alone_at, put_in_place, read_json, write_json
from multifaceted.records import VERSION, Example
from multifaceted.template import render_answered
from multifaceted.trees import TokenTree

log = logging.getLogger(__name__)

AT_ONCE = 1000
"""Examples that are tokenized together: lists of ids take nine times the memory of a tree's arrays."""
PARALLEL = 20_000
"""Examples from which on several processes pay: each takes seconds to start."""
FORM = 1
"""Of what is kept. A change of this package that changes tokens must change it."""
ABANDONED = 3600.0
"""Seconds without a write after which the job that wrote is gone."""
MOST_PROCESSES = 16
"""Each takes 0.4 GB."""
TREES, COUNTS = "trees.arrow", "counts.json"


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    max_tokens: int | None = None,
    overlong: Overlong,
    with_rejected: bool,
    bad: BadRows,
    cache: Path | None = None,
) -> Encoded:
    """Encode examples, each under the tokenizer's chat template.

    Args:
        max_length: most tokens of one path, BOS and EOS included.
        max_tokens: most tokens of a tree: what a row holds.
        with_rejected: whether rejected responses become branches.
        bad: takes an example that has no tokens of its own; see `tokenize`.
        cache: where token trees are kept, by the content of examples, tokenizer, template and limits. They are read
            from there, memory-mapped. One that cannot be read or written is said, and the trees stay in memory.

    Raises:
        DataError: nothing is left.
    """
    limits = Limits(max_length=max_length, max_tokens=max_tokens, overlong=overlong)
    work = _Work(tokenizer=tokenizer, limits=limits, with_rejected=with_rejected, policy=bad.policy)
    if cache is None:
        return _in_memory(work, examples, bad)
    folder = cache / "tokens" / _key(work, examples)
    with alone_at(folder):
        kept = _kept(folder, bad)
        if kept is not None:
            return kept
        try:
            return _keep(folder, work, examples, bad)
        except (OSError, pa.ArrowException) as error:
            log.warning("tokens are not kept, so they take memory, and another run computes them again: %s", error)
            return _in_memory(work, examples, bad)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What a process needs to know to tokenize."""

    tokenizer: PreTrainedTokenizerBase
    limits: Limits
    with_rejected: bool
    policy: OnBadRow

    def part(self, examples: Sequence[Example]) -> tuple[Encoded, BadRows]:
        bad = BadRows(policy=self.policy)
        return tokenize(examples, self.tokenizer, self.limits, with_rejected=self.with_rejected, bad=bad), bad


def _in_memory(work: _Work, examples: Sequence[Example], bad: BadRows) -> Encoded:
    result = Encoded(trees=[])
    result.trees = [tree for trees in _parts(work, examples, result, bad) for tree in trees]
    return _not_empty(result, work, examples, bad)


def _keep(folder: Path, work: _Work, examples: Sequence[Example], bad: BadRows) -> Encoded:
    """Write the trees, and read them from there."""
    result, own = Encoded(trees=[]), BadRows(policy=bad.policy)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    partial_folder = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_trees(partial_folder / TREES, _parts(work, examples, result, own))
        result.trees = StoredTrees(partial_folder / TREES)
        _not_empty(result, work, examples, own)
        counts = {"trees": len(result.trees), "dropped": result.dropped, "cut": result.cut}
        counts["checksum"] = _checksum(partial_folder / TREES)
        write_json(
            partial_folder / COUNTS, {"version": VERSION, **counts, "bad": own.counts, "bad_samples": own.samples}
        )
        shutil.rmtree(folder, ignore_errors=True)
        put_in_place(partial_folder, folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    result.trees = StoredTrees(folder / TREES)
    bad.add(own)
    return result


def _kept(folder: Path, bad: BadRows) -> Encoded | None:
    """What a folder of the cache holds, if it is whole."""
    if not folder.exists():
        return None
    try:
        counts: dict[str, Any] = read_json(folder / COUNTS)
        trees = StoredTrees(folder / TREES)
        if len(trees) != counts["trees"]:
            raise RecordError(f"it holds {len(trees)} trees of {counts['trees']}")
        if _checksum(folder / TREES) != counts["checksum"]:
            raise RecordError("its bytes are not those that were written")
        if counts["bad"] and bad.policy is OnBadRow.RAISE:
            return None  # they were counted, and stop this run when they are found again
        lost = Counter(counts["bad"])
        bad.add(BadRows(counts=lost, errors=lost.copy(), samples=dict(counts["bad_samples"])))
        return Encoded(trees=trees, dropped=Counter(counts["dropped"]), cut=Counter(counts["cut"]))
    except (RecordError, OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        log.warning("tokens are computed again: %s cannot be used: %s", folder, error)
        return None


def _remove_abandoned(folder: Path) -> None:
    """Remove what jobs left that were killed while they wrote the same."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        with contextlib.suppress(OSError):
            if left.is_dir() and time.time() - max(p.stat().st_mtime for p in (left, *left.iterdir())) > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _not_empty(result: Encoded, work: _Work, examples: Sequence[Example], bad: BadRows) -> Encoded:
    if not result.trees:
        raise DataError(
            f"no example is left of {len(examples)}: {dict(result.dropped + bad.counts)} at"
            f" data.max_length={work.limits.max_length}; raise data.max_length (and batch.max_tokens) or shorten the"
            " prompts"
        )
    return result


def _key(work: _Work, examples: Iterable[Example]) -> str:
    """A hash of all that decides what the tokens are."""
    limits = {**asdict(work.limits), "with_rejected": work.with_rejected}
    versions = {name: version(name) for name in ("transformers", "tokenizers")}
    digest = hashlib.sha256(json.dumps([FORM, versions, limits]).encode())
    with tempfile.TemporaryDirectory() as name:
        work.tokenizer.save_pretrained(name)
        for path in sorted(Path(name).rglob("*")):
            if path.is_file():
                digest.update(path.name.encode() + path.read_bytes())
    digest.update(_trial(work.tokenizer).encode())
    for e in examples:
        turns = [[turn.role, turn.content] for turn in e.turns]
        row = [e.id, e.source, e.system, turns, e.chosen, e.rejected, e.contrast, e.margin]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:32]


def _trial(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template makes of a conversation, in which whatever else it depends on shows, such as the date."""
    try:
        return render_answered(tokenizer, [[{"role": "user", "content": "Hi."}]], ["Hi."])[0]
    except TemplateError as error:
        return str(error)


def _parts(work: _Work, examples: Sequence[Example], result: Encoded, bad: BadRows) -> Iterator[Sequence[TokenTree]]:
    """The trees in the order of the examples; what became of the others is added to `result` and `bad`."""
    chunks = (list(examples[first : first + AT_ONCE]) for first in range(0, len(examples), AT_ONCE))
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0))) if len(examples) >= PARALLEL else 1
    parts = map(work.part, chunks) if processes == 1 else _in_processes(processes, work, chunks)
    with tqdm(total=len(examples), desc="tokenize", unit="example", disable=None, delay=2, leave=False) as bar:
        for encoded, own in parts:
            result.count(encoded)
            bad.add(own)
            yield encoded.trees
            bar.update(AT_ONCE)


def _in_processes(number: int, work: _Work, chunks: Iterable[Sequence[Example]]) -> Iterator[tuple[Encoded, BadRows]]:
    """The parts in order; no more chunks are read than the processes need to keep busy."""
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    stream = iter(chunks)
    waiting: deque[tuple[Sequence[Example], Future[tuple[Encoded, BadRows]]]] = deque()
    with ProcessPoolExecutor(number, spawn, _begin, (work, os.getpid())) as pool:
        try:
            while len(waiting) < 2 * number and (chunk := next(stream, None)) is not None:
                waiting.append((chunk, pool.submit(_part, chunk)))
            while waiting:
                yield waiting[0][1].result()
                waiting.popleft()
                if (chunk := next(stream, None)) is not None:
                    waiting.append((chunk, pool.submit(_part, chunk)))
            return
        except BrokenProcessPool:
            log.warning("a process that tokenized is gone, killed for memory perhaps; this one does the rest alone")
        finally:
            pool.shutdown(cancel_futures=True)
    for chunk in chain((chunk for chunk, _ in waiting), stream):
        yield work.part(chunk)


_OF_PROCESS: list[_Work] = []
"""The work of a process that tokenizes: sent once, and not with every chunk."""


def _begin(work: _Work, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _OF_PROCESS.append(work)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, which tells nobody when it is killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _part(examples: Sequence[Example]) -> tuple[Encoded, BadRows]:
    return _OF_PROCESS[0].part(examples)
