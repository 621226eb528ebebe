"""Our side: the parts that `train.py` puts together, on the workload's token trees instead of text."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from benchmarks.job import PLAIN, SIZES, Job
from benchmarks.memory import static_gb
from benchmarks.planned import planned
from benchmarks.recipe import (
    ADAM_BETA2,
    CLIP_NORM,
    DPO_BETA,
    LEARNING_RATE,
    ORPO_LAMBDA,
    SEED,
    model_config,
    number_tokenizer,
)
from benchmarks.timer import Finished, Timer
from benchmarks.workload import MAX_LENGTH, examples_of
from multifaceted.data.batch import Batch
from multifaceted.data.batches import StepBatch, TrainingBatches
from multifaceted.data.dataset import Data
from multifaceted.data.encode import Encoded
from multifaceted.data.source import DataSource
from multifaceted.data.tokens import TokenTrees
from multifaceted.model.adapter import Adapter
from multifaceted.model.build import Dtype, ScratchModel
from multifaceted.model.vocabulary import Projection
from multifaceted.objective.base import Objective
from multifaceted.objective.dpo import DPO
from multifaceted.objective.orpo import ORPO
from multifaceted.objective.reward_model import RewardModel
from multifaceted.record_files import write_json
from multifaceted.records import RUN
from multifaceted.tracking import Wandb
from multifaceted.training.config import Paths, TrainConfig
from multifaceted.training.fit import fit
from multifaceted.training.optimizer import AdamW, Schedule, Shape
from multifaceted.training.prepare import Prepared, TokenData, module_of, training_batches
from multifaceted.training.ranks import Ranks
from multifaceted.training.reference import evaluation_batches, reference_logps
from multifaceted.training.saving import Validation
from multifaceted.training.start import Start, load_scorer
from multifaceted.trees import TokenTree

OBJECTIVES: dict[str, Objective] = {
    "dpo": DPO(beta=DPO_BETA),
    "orpo": ORPO(lam=ORPO_LAMBDA),
    "reward_model": RewardModel(),
}


class _Steps(Callback):
    def __init__(self, job: Job) -> None:
        self.timer = Timer(warmup_steps=job.steps_per_repeat, steps_per_repeat=job.steps_per_repeat)
        self.key = "train/odds_ratio_loss" if job.objective == "orpo" else "train/loss"
        self.losses: list[float] = []
        self.ids: list[list[str]] = []
        """Of the examples of each step."""

    def on_train_start(self, *args: Any, **kwargs: Any) -> None:
        self.timer.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: StepBatch, batch_idx: int) -> None:
        self.losses.append(pl_module.logged[self.key])
        self.ids.append([name for part in batch.passes for name in part.ids])
        self.timer.step_done()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        trainer.strategy.teardown = lambda: None  # it would copy a large model to the host, for nobody


def train(job: Job) -> dict[str, Any]:
    """Repeats of a job, as the program asks for them."""
    steps = _Steps(job)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = config_of(job, folder, {"benchmark": steps})
        ranks = Ranks(device_type=job.device)
        prepared, reference_seconds = _prepare(job, config, folder, ranks)
        write_json(folder / RUN, {"wandb_id": "benchmark"})
        with contextlib.suppress(Finished):
            fit(config, {}, folder, prepared, ranks)
    return {"reference_seconds": reference_seconds, **_facts(job, config, prepared, steps)}


def _facts(job: Job, config: TrainConfig, prepared: Prepared, steps: _Steps) -> dict[str, Any]:
    module, batches = prepared.module, prepared.batches
    first = next(iter(batches))
    trees = {tree.id: tree for tree in batches.trees}

    def tokens(ids: Iterable[str]) -> int:
        return sum(len(trees[i]) for i in ids)

    measured = steps.ids[job.steps_per_repeat :]
    repeats = [measured[i : i + job.steps_per_repeat] for i in range(0, len(measured), job.steps_per_repeat)]
    members = [trees[name] for part in first.passes for name in part.ids]
    return {
        "losses": steps.losses[:2],
        "static_gb": static_gb(module.scorer.model, module.optimizers().optimizer),
        "pass_tokens": max(tokens(part.ids) for part in first.passes),
        "repeat_tokens": [sum(map(tokens, repeat)) for repeat in repeats],
        **planned(config, module.scorer.model, first, members, job.steps_per_repeat),
    }


def config_of(job: Job, folder: Path, callbacks: dict[str, Callback]) -> TrainConfig:
    """What `train.py` would compose, but for the data."""
    size, settings = SIZES[job.size], job.settings
    bf16 = size.dtype == "bfloat16"
    config = TrainConfig(
        data=Data(source=DataSource(), max_length=MAX_LENGTH),
        model=ScratchModel(architecture="mistral", config=model_config(size), dtype=Dtype(size.dtype)),
        objective=OBJECTIVES[job.objective],
        optimizer=AdamW(lr=LEARNING_RATE, beta2=ADAM_BETA2, eight_bit=settings.get("eight_bit", False)),
        batch=batch_of(job),
        paths=Paths(outputs=folder, cache=folder / "cache"),
        schedule=Schedule(shape=Shape.CONSTANT),
        logger=Wandb(mode="disabled"),
        trainer={
            "accelerator": "gpu" if job.device == "cuda" else "cpu",
            "devices": 1,
            "precision": "bf16-true" if bf16 else "32-true",
        },
        callbacks=callbacks,
        seed=SEED,
        num_epochs=job.max_repeats + 1,
        clip_norm=CLIP_NORM,
        validation=Validation(times=1),  # after the last step, which is not reached
        projection=Projection(settings.get("projection", Projection.CHUNKED)),
        **{key: settings[key] for key in ("activation_checkpointing", "compile") if key in settings},
    )
    if settings.get("adapter") == "lora":
        config.adapter = Adapter()  # set late: a config refuses an adapter on random weights, which no file holds
    return config


def batch_of(job: Job) -> Batch:
    """The job's optimizer step; settings of the job win."""
    plain = {"packing": False, "share_prefix": False} if job.system == PLAIN else {}
    own = {key: value for key, value in job.settings.items() if key in Batch.__dataclass_fields__}
    number = job.step_examples * (job.rejected if job.system == PLAIN else 1)
    return Batch(**{"examples": None if "tokens" in own else number, **plain, **own})


def trees_of(job: Job) -> list[TokenTree]:
    """The workload as preference trees; where nothing is shared, a group is several pairs."""
    trees = []
    for index, example in enumerate(examples_of(job)):
        chosen, *rejected = example.responses
        parts = [[response] for response in rejected] if job.system == PLAIN else [rejected]
        trees += [
            TokenTree(id=f"{index}-{number}", prompt=example.prompt, branches=[chosen, *part], source="synthetic")
            for number, part in enumerate(parts)
        ]
    return trees


def _prepare(job: Job, config: TrainConfig, folder: Path, ranks: Ranks) -> tuple[Prepared, float | None]:
    """What `training.prepare` does once the data are tokens, and the seconds of the reference pass."""
    trees = trees_of(job)
    data = TokenData(
        tokenizer=number_tokenizer(SIZES[job.size].vocab_size),
        train=Encoded(trees=TokenTrees.of(trees)),
        held_out=Encoded(trees=TokenTrees.of(trees[:1])),
    )
    batches = training_batches(config, trees, ranks)
    pairs = evaluation_batches(trees[:1], config.batch, ranks)
    with torch.device(job.device):  # random weights of a large model take minutes on a CPU
        scorer = load_scorer(config, Start(source=config.model), data.tokenizer, folder, ranks)
    seconds = None
    if config.objective.needs_reference:
        started = time.perf_counter()
        arithmetic = config.strategy.arithmetic(ranks, config.precision)
        batches.reference = pairs.reference = reference_logps(
            scorer, trees, config.batch, config.paths.cache, ranks, arithmetic
        )
        seconds = time.perf_counter() - started
    module = module_of(config, scorer, batches.num_steps, ranks)
    return Prepared(data=data, module=module, batches=batches, pairs=pairs), seconds


def fill(job: Job) -> dict[str, Any]:
    """Share of the rows' positions that hold a token, over one epoch, under each of the job's candidates."""
    trees, found = trees_of(job), []
    for settings in job.candidates:
        batch = batch_of(replace(job, settings=settings))
        batches = TrainingBatches(trees=trees, batch=batch, num_epochs=1, seed=SEED)
        rows = sum(len(step.passes) for step in batches)
        found.append(sum(map(batch.cost, trees)) / (rows * batch.max_tokens))
    return {"fill": found}
