"""TRL's DPO, ORPO and reward trainers on the workload, through their own data pipeline and training loop.

TRL takes text. A tokenizer whose words are the decimal spellings of their ids gives it exactly the workload's tokens,
so nothing in TRL is patched or subclassed but to time its reference pass.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    MistralConfig,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from benchmarks.job import SIZES, Job, Size
from benchmarks.memory import peak_gb, reset_peak, static_gb
from benchmarks.recipe import (
    ADAM_BETA2,
    CLIP_NORM,
    DPO_BETA,
    LEARNING_RATE,
    ORPO_LAMBDA,
    WEIGHTS_SEED,
    model_config,
    number_tokenizer,
    text_of,
)
from benchmarks.timer import Finished, Timer
from benchmarks.workload import BOS, EOS, MAX_LENGTH, PAD, Example, examples_of


def pairs_of(examples: Sequence[Example]) -> Dataset:
    """One row for each rejected response, with the length that TRL groups by."""
    rows = []
    for example in examples:
        chosen, *rejected = example.responses
        rows += [
            {
                "prompt": text_of(example.prompt),
                "chosen": f" {text_of(chosen)}",
                "rejected": f" {text_of(response)}",
                "length": len(example.prompt) + max(len(chosen), len(response)),
            }
            for response in rejected
        ]
    return Dataset.from_list(rows)


class _TimedDPOTrainer(DPOTrainer):
    reference_seconds = 0.0

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Dataset:
        started = time.perf_counter()
        dataset = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds += time.perf_counter() - started
        return dataset


TRAINERS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "dpo": (_TimedDPOTrainer, DPOConfig, {"beta": DPO_BETA, "precompute_ref_log_probs": True, "max_length": None}),
    "orpo": (ORPOTrainer, ORPOConfig, {"beta": ORPO_LAMBDA, "max_length": 2 * MAX_LENGTH}),
    "reward_model": (RewardTrainer, RewardConfig, {"max_length": None}),
}


def build_model(size: Size, device: str, *, reward: bool, attention: str) -> Any:
    """The model with random weights, the same ones for every system."""
    config = MistralConfig(
        vocab_size=size.vocab_size,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        **model_config(size),
        **({"num_labels": 1} if reward else {}),
    )
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    torch.manual_seed(WEIGHTS_SEED)
    with torch.device(device):
        return kind.from_config(config, dtype=getattr(torch, size.dtype), attn_implementation=attention)


class _Steps(TrainerCallback):
    def __init__(self, timer: Timer) -> None:
        self.timer = timer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.timer.start()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.timer.step_done()


def build_trainer(job: Job, settings: dict[str, Any], callback: TrainerCallback, folder: str) -> Any:
    """A TRL trainer with `settings`: arguments of its config, and `attn_implementation`."""
    size = SIZES[job.size]
    own = dict(settings)
    trainer, config, extra = TRAINERS[job.objective]
    attention = own.pop("attn_implementation", "sdpa")
    eight_bit = own.pop("eight_bit", None)
    model = build_model(size, job.device, reward=job.objective == "reward_model", attention=attention)
    batch_size = own["per_device_train_batch_size"]
    arguments = config(
        output_dir=folder,
        num_train_epochs=job.max_repeats + 1,
        gradient_accumulation_steps=job.step_examples * job.rejected // batch_size,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta2=ADAM_BETA2,
        max_grad_norm=CLIP_NORM,
        use_cpu=job.device == "cpu",
        **{
            "bf16": False,  # weights already have the type that layers compute in
            "gradient_checkpointing": False,
            "remove_unused_columns": False,  # or the column of lengths, by which batches may be grouped, is lost
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            **extra,
            **own,
        },
    )
    return trainer(
        model=model,
        args=arguments,
        train_dataset=pairs_of(examples_of(job)),
        processing_class=number_tokenizer(size.vocab_size),
        callbacks=[callback],
        **({} if eight_bit is None else {"optimizers": (_our_optimizer(model, eight_bit=eight_bit), None)}),
    )


def _our_optimizer(model: torch.nn.Module, *, eight_bit: bool) -> torch.optim.Optimizer:
    """In bf16 both sides have the same optimizer too: ours, which rounds at random."""
    from multifaceted.training.optimizer import AdamW

    return AdamW(lr=LEARNING_RATE, beta2=ADAM_BETA2, eight_bit=eight_bit).build(model)


def _run(job: Job, settings: dict[str, Any], timer: Timer) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(job, settings, _Steps(timer), folder)
        try:
            trainer.train()
        except Finished:
            return trainer
    raise RuntimeError("TRL ended its training before the repeats did")


def train(job: Job) -> dict[str, Any]:
    """Repeats of a job, as the program asks for them."""
    trainer = _run(job, job.settings, Timer(warmup_steps=job.steps_per_repeat, steps_per_repeat=job.steps_per_repeat))
    logged = [row for row in trainer.state.log_history if "loss" in row][:2]
    key, sign = ("log_odds_ratio", -1) if job.objective == "orpo" else ("loss", 1)
    return {
        "reference_seconds": getattr(trainer, "reference_seconds", None),
        "losses": [sign * row[key] for row in logged],
        "static_gb": static_gb(trainer.model, trainer.optimizer.optimizer),
        "pass_tokens": _mean_tokens(job) * job.settings["per_device_train_batch_size"] / job.rejected,
    }


def _mean_tokens(job: Job) -> float:
    """Tokens of an example as a tree, so that both systems are measured in the same ones."""
    examples = examples_of(job)
    return sum(len(e.prompt) + sum(map(len, e.responses)) for e in examples) / len(examples)


def search(job: Job, report: Callable[..., None]) -> None:
    """Time one repeat under each candidate, after a short one that warms up the process."""
    number = job.candidates[0]["per_device_train_batch_size"]
    _timed(replace(job, examples=number, step_examples=number), job.candidates[0])
    for settings in job.candidates:
        report(settings=settings, **_timed(job, settings))


def _timed(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    gc.collect()
    if job.device == "cuda":
        torch.cuda.empty_cache()
    reset_peak(job.device)
    timer = Timer(warmup_steps=0, steps_per_repeat=job.steps_per_repeat, go_on=lambda: False)
    error = None
    try:
        _run(job, settings, timer)
    except (RuntimeError, ValueError, ImportError) as caught:  # such as out of memory: another candidate may fit
        error = f"{type(caught).__name__}: {str(caught).splitlines()[0]}"
    return {"seconds": sum(timer.seconds), "peak_gb": peak_gb(job.device), "error": error}
