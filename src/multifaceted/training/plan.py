"""A plan of a run: what it reads, how it packs, what it needs and costs; found from real data without any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from multifaceted.data.batches import TrainingBatches
from multifaceted.data.packing import padded_rows
from multifaceted.model.flops import Flops
from multifaceted.training.config import TrainConfig
from multifaceted.training.hardware import GIB, Device, local_device, named_device
from multifaceted.training.memory import memory_parts
from multifaceted.training.nearest import nearest_that_fits
from multifaceted.training.prepare import TokenData, prepare_data, training_batches
from multifaceted.training.ranks import Ranks
from multifaceted.training.start import source_of
from multifaceted.work import Work


@dataclass(kw_only=True, slots=True)
class Planned:
    """A plan to print.

    Attributes:
        sections: by title, names and values.
        refusal: why the run cannot be, and what could; None where it can.
    """

    sections: dict[str, dict[str, Any]]
    refusal: str | None = None


def plan(config: TrainConfig) -> Planned:
    """Plan a run. Nothing is written but the cache of tokens, which the run will read, and no weights are read.

    Raises:
        DataError, ValueError: what would stop the run before training.
    """
    device = _device(config)
    num_devices = num_devices_of(config)
    config.batch.check_ranks(num_devices)
    data = prepare_data(config, source_of(config), check=lambda fingerprint: None)
    batches = training_batches(config, data.train.trees, Ranks(world_size=num_devices))
    model = empty_model(config, data.tokenizer)
    steps = _Steps.of(config, batches)
    parts = memory_parts(config, model, num_devices=num_devices, widest=steps.widest)
    planned = Planned(
        sections={
            "data": _data(data),
            "packing": _packing(config, steps),
            f"memory of each of {num_devices} {device.name}, GiB": _memory(parts, device),
            "compute": _compute(config, model, data, steps, device, num_devices),
        }
    )
    if sum(parts.values()) > device.memory_gib * GIB:
        longest = max(config.batch.cost(tree) for tree in (*data.train.trees, *data.held_out.trees))
        planned.refusal = (
            f"the run needs {sum(parts.values()) / GIB:.1f} GiB on each device, and {device.name} has"
            f" {device.memory_gib:.1f}. "
        ) + nearest_that_fits(
            config,
            num_devices,
            longest_tree=longest,
            bytes_needed=lambda other, number: sum(
                memory_parts(
                    other, empty_model(other, data.tokenizer), num_devices=number, widest=steps.widest
                ).values()
            ),
            bytes_there=device.memory_gib * GIB,
        )
    return planned


def num_devices_of(config: TrainConfig) -> int:
    """How many devices the run is planned for."""
    return config.plan.num_devices or max(1, config.num_devices)


def empty_model(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model to train, with its adapter, on the meta device: shapes and types, but no weights."""
    with torch.device("meta"):
        model = source_of(config).load_model(
            tokenizer, reward=config.has_reward_head, max_length=config.data.max_length, empty=True
        )
    if config.adapter is not None:
        config.adapter.inject(model)
    return model


def _device(config: TrainConfig) -> Device:
    wanted, is_gpu = config.plan.device, config.device_type == "cuda"
    if wanted is not None:
        if not is_gpu:
            raise ValueError(f"plan.device={wanted} is a GPU, and trainer.accelerator is cpu; set trainer=gpu")
        return named_device(wanted)
    if is_gpu and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator is gpu, and there is none here to plan for; name one: plan.device=h200")
    return local_device(config.device_type)


@dataclass(kw_only=True, slots=True)
class _Steps:
    """What all optimizer steps of a run compute."""

    number: int
    passes: int
    widest: int
    """Positions of the largest forward pass."""
    work: Work
    repeated: int
    """Tokens if every branch had a prompt of its own."""
    unpacked: int
    """Positions of the rows if, besides, each was padded to the longest beside it."""

    @classmethod
    def of(cls, config: TrainConfig, batches: TrainingBatches) -> _Steps:
        result = cls(number=0, passes=0, widest=0, work=Work(), repeated=0, unpacked=0)
        on_gpu = config.device_type == "cuda"
        for rows in batches.rows_of_steps():
            trees = [[batches.trees[index] for index in row] for row in rows]
            result.number += 1
            result.passes += len(rows)
            for row in trees:
                work = config.batch.work([row], on_gpu=on_gpu)
                result.work, result.widest = result.work + work, max(result.widest, work.laid_out)
            paths = [[len(path) for path in tree.paths] for row in trees for tree in row]
            result.repeated += sum(map(sum, paths))
            result.unpacked += _unpacked(paths, config.batch.max_tokens)
        return result


def _unpacked(lengths: Sequence[Sequence[int]], max_tokens: int) -> int:
    groups = padded_rows(lengths, max_tokens)
    return sum(max(max(lengths[i]) for i in group) * sum(len(lengths[i]) for i in group) for group in groups)


def _data(data: TokenData) -> dict[str, Any]:
    trees = data.train.trees
    return {
        "examples": len(trees),
        "validation_examples": len(data.held_out.trees),
        **data.counts,
        "tokens/prompt": sum(len(tree.prompt) for tree in trees),
        "tokens/chosen": sum(len(tree.branches[0]) for tree in trees),
        "tokens/rejected": sum(len(branch) for tree in trees for branch in tree.branches[1:]),
    }


def _packing(config: TrainConfig, steps: _Steps) -> dict[str, Any]:
    work, repeated = steps.work, steps.repeated
    return {
        "steps": steps.number,
        "forward_passes": steps.passes,
        "fill": percent((work.laid_out - work.padding) / (steps.passes * config.batch.max_tokens)),
        "padding": percent(work.padding_share),
        "tokens": work.tokens,
        "tokens/prompts_repeated": repeated,
        "tokens/saved_by_sharing": percent(1 - work.tokens / repeated),
        "positions": work.laid_out,
        "positions/unpacked": steps.unpacked,
        "positions/saved": percent(1 - work.laid_out / steps.unpacked),
    }


def _memory(parts: dict[str, int], device: Device) -> dict[str, Any]:
    shown = {name: num_bytes / GIB for name, num_bytes in parts.items()}
    return {**shown, "together": sum(shown.values()), "there": device.memory_gib}


def _compute(
    config: TrainConfig, model: PreTrainedModel, data: TokenData, steps: _Steps, device: Device, num_devices: int
) -> dict[str, Any]:
    try:
        flops = Flops.of(model)
    except ValueError as error:
        return {"flops": f"unknown: {error}"}
    held_out = Work.of(data.held_out.trees)
    validations = steps.number // max(1, steps.number // config.validation.times)
    passes = {"validation": validations * flops.forward(held_out)}
    if config.objective.needs_reference:
        passes["reference"] = flops.forward(Work.of(data.train.trees) + held_out)
    useful = flops.training(steps.work)
    computed = flops.computed(steps.work, checkpointing=config.activation_checkpointing)
    shown: dict[str, Any] = {"flops": float(useful), "flops/with_recomputation_and_padding": float(computed)}
    shown |= {f"flops/{name}": float(value) for name, value in passes.items()}
    peak = device.flops if config.computes_in_16_bits else None
    if peak is None:
        of_what = "its peak in this precision" if device.flops else "the device's peak"
        return {**shown, "hours": f"unknown, for {of_what} is not known"}
    rate = peak * config.plan.utilisation * num_devices * 3600
    hours = {name: value / rate for name, value in {"training": computed, **passes}.items()}
    shown |= {f"hours/{name}": value for name, value in hours.items()}
    shown |= {"hours": sum(hours.values()), "utilisation": percent(config.plan.utilisation)}
    shown["mfu"] = percent(config.plan.utilisation * useful / computed)
    if config.plan.price is not None:
        shown["cost_usd"] = sum(hours.values()) * num_devices * config.plan.price
    return shown


def percent(share: float) -> str:
    """A share with one digit after the point."""
    return f"{100 * share:.1f} %"
