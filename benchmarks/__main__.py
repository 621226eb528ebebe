"""`python -m benchmarks cpu`, `gpu`, `data`, `inference` or `table`."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from benchmarks.calls import INFERENCE_STAGES
from benchmarks.data import DATA_STAGES
from benchmarks.gpu import GPU_STAGES
from benchmarks.record import RESULTS, Record
from benchmarks.stages import CPU_STAGES, Bench, run_stages
from benchmarks.table import read_results, render
from benchmarks.tokens import TOKEN_STAGES


def main() -> None:
    """Measure and print the table, or print it from what was measured."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.what == "table":
        print(render(read_results(arguments.files or sorted(RESULTS.glob("*.json")))))
        return
    on_gpu = arguments.what == "gpu"
    size = arguments.size or ("7b" if on_gpu else "cpu")
    device = arguments.device or ("cuda" if on_gpu else "cpu")
    if device == "cuda" and shutil.which("nvidia-smi") is None:
        parser.error("there is no NVIDIA GPU here; `gpu --size tiny --device cpu` runs everything of it in small")
    folder = arguments.out or Path(os.environ.get("OUT", RESULTS))
    bench = Bench(
        record=Record(folder, device, _suffix(arguments.what, size), add=arguments.only is not None),
        size=size,
        device=device,
        step_examples=arguments.pairs or (16 if size == "7b" else 8),
    )
    stages = {
        "cpu": CPU_STAGES,
        "gpu": GPU_STAGES,
        "data": [*TOKEN_STAGES, *DATA_STAGES],
        "inference": INFERENCE_STAGES,
    }[arguments.what]
    wanted = [s for s in stages if not arguments.only or arguments.only in s.name]
    run_stages(bench, wanted, arguments.minutes or (9 if on_gpu else 14), lambda line: print(line, flush=True))
    print(f"\n{bench.record.path}\n\n{render([bench.record.content])}")


def _suffix(what: str, size: str) -> str:
    """What tells apart the files of one machine: each is measured at another commit."""
    if size == "tiny":
        return f".{what}-tiny"
    return f".{what}" if what in ("data", "inference") else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=("cpu", "gpu", "data", "inference", "table"))
    parser.add_argument("files", nargs="*", type=Path, help="with `table`: results to show, by default all")
    parser.add_argument("--minutes", type=float, help="time for everything; more of it means more repeats")
    parser.add_argument("--pairs", type=int, help="pairs of an optimizer step")
    parser.add_argument("--size", choices=("tiny", "cpu", "7b"), help="tiny runs everything once, in seconds a part")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--only", help="stages whose name contains this, added to the results that are there")
    parser.add_argument("--out", type=Path, help="folder of the results; by default $OUT or benchmarks/results")
    return parser


if __name__ == "__main__":
    main()
