"""Make data: `python synthesize.py task=bench_instructions benches.koala=...`; `--help` explains more."""

import sys

import hydra
from omegaconf import DictConfig

from multifaceted.config import prepare_overrides


@hydra.main(version_base="1.3", config_path="conf", config_name="synthesize")
def main(config: DictConfig) -> None:
    """Build the typed config and run it."""
    from multifaceted.app import leave, synthesize

    leave(synthesize(config))


if __name__ == "__main__":
    sys.argv[1:] = prepare_overrides(sys.argv[1:])
    main()
