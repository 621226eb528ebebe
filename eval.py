"""Evaluate an exported policy: `python eval.py policy=outputs/orpo/policy task=mini`; `--help` explains more."""

import sys

import hydra
from omegaconf import DictConfig

from multifaceted.config import prepare_overrides


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(config: DictConfig) -> None:
    """Build the typed config and run it."""
    from multifaceted.app import evaluate, leave

    leave(evaluate(config))


if __name__ == "__main__":
    sys.argv[1:] = prepare_overrides(sys.argv[1:])
    main()
