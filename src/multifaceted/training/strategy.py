"""How a model is laid out over devices: whole on one, or sharded over all (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.optim import Optimizer

from multifaceted.model.build import decoder_layers
from multifaceted.model.score import Scorer
from multifaceted.training import checkpoint as checkpoints
from multifaceted.training.ranks import Ranks

MIXED_TYPES = {"bf16-mixed": torch.bfloat16}
TRUE_TYPES = {"bf16-true": torch.bfloat16}
"""What Lightning's names of precisions mean: the type of products, or of the weights themselves."""
PRECISIONS = ("32-true", *MIXED_TYPES, *TRUE_TYPES)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a pass outside Lightning's Trainer computes as one inside does."""

    name: str
    """Lightning's name of the precision."""
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


class Strategy:
    """Lays out a model and tells Lightning how. Subclasses are dataclasses."""

    shards: ClassVar[bool] = False
    """Whether a rank holds a part of the weights only; then any number of ranks may train one model."""

    def lay_out(self, scorer: Scorer, ranks: Ranks, precision: str) -> None:
        """Put the model where it trains, in place."""
        raise NotImplementedError

    def arithmetic(self, ranks: Ranks, precision: str) -> Arithmetic:
        """That of the training steps. A model laid out for a precision brings it along."""
        return Arithmetic(precision)

    def trainer_arguments(self, ranks: Ranks, precision: str) -> dict[str, Any]:
        """Arguments of Lightning's Trainer."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class SingleDevice(Strategy):
    """The whole model on one device."""

    def lay_out(self, scorer: Scorer, ranks: Ranks, precision: str) -> None:
        """Move it there, in the type that its weights are to have."""
        _set_type(scorer, precision)
        scorer.to(ranks.device)

    def arithmetic(self, ranks: Ranks, precision: str) -> Arithmetic:
        """Autocast, where Lightning's steps have it, and as it does, without keeping copies of the weights."""
        if precision not in MIXED_TYPES:
            return Arithmetic(precision)
        return Arithmetic(
            precision, partial(torch.autocast, ranks.device_type, MIXED_TYPES[precision], cache_enabled=False)
        )

    def trainer_arguments(self, ranks: Ranks, precision: str) -> dict[str, Any]:
        """One device; weights in bf16 need nothing of Lightning, which would cast reference values too."""
        return {
            "strategy": OneDevice(ranks),
            "devices": 1,
            "precision": precision if precision in MIXED_TYPES else "32-true",
            "plugins": [Environment(ranks)],
        }


@dataclass(kw_only=True, slots=True)
class FullyShard(Strategy):
    """FSDP2: weights, gradients and optimizer state divided over all ranks, gathered layer by layer (`fully_shard`).

    Attributes:
        reshard_after_forward: free a layer's weights between forward and backward pass; false is faster and larger.
        cpu_offload: keep the shards in host memory.
    """

    reshard_after_forward: bool = True
    cpu_offload: bool = False

    shards = True

    def lay_out(self, scorer: Scorer, ranks: Ranks, precision: str) -> None:
        """Shard every decoder layer, then what is left."""
        settings: dict[str, Any] = {
            "mesh": init_device_mesh(ranks.device_type, (ranks.world_size,)),
            "reshard_after_forward": self.reshard_after_forward,
            "mp_policy": _mixed_precision(precision),
            "offload_policy": CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy(),
        }
        _set_type(scorer, precision)
        for layer in decoder_layers(scorer.model):
            fully_shard(layer, **settings)
        fully_shard(scorer, **settings)
        device = torch.device("cpu") if self.cpu_offload else ranks.device
        if any(parameter.is_meta for parameter in scorer.parameters()):
            scorer.to_empty(device=device)
        else:
            scorer.to(device)

    def trainer_arguments(self, ranks: Ranks, precision: str) -> dict[str, Any]:
        """All ranks; FSDP2 itself computes in bf16, on weights that stay as they are."""
        return {
            "strategy": Sharded(ranks),
            "devices": ranks.local_world_size,
            "num_nodes": ranks.num_nodes,
            "precision": "32-true",
            "plugins": [Environment(ranks)],
        }


def _set_type(scorer: Scorer, precision: str) -> None:
    """Give the weights their type; buffers keep theirs, for rotary frequencies in bf16 would misplace late tokens."""
    if precision in TRUE_TYPES:
        for parameter in scorer.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(TRUE_TYPES[precision])


def _mixed_precision(precision: str) -> MixedPrecisionPolicy:
    if precision in MIXED_TYPES:
        return MixedPrecisionPolicy(param_dtype=MIXED_TYPES[precision], reduce_dtype=torch.float32)
    return MixedPrecisionPolicy()


class FolderCheckpoints(LightningStrategy):
    """Lets Lightning save and resume through `training.checkpoint`, after the model is where it trains."""

    ranks: Ranks

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Optimizers must exist before their state is read."""
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        """`load_checkpoint` has done it."""
        return False

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Empty: `save_checkpoint` collects the weights."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Empty: `save_checkpoint` collects the state."""
        return {}

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        """`load_checkpoint` has done it."""

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """`load_checkpoint` has done it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a folder."""
        state = {key: value for key, value in checkpoint.items() if key not in ("state_dict", "optimizer_states")}
        checkpoints.write(Path(filepath), self._scored_model, self.optimizers, state, self.ranks)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a folder into model and optimizers."""
        state = checkpoints.read(Path(checkpoint_path), self._scored_model, self.optimizers, self.ranks)
        return {**state, "state_dict": {}, "optimizer_states": []}

    @property
    def _scored_model(self) -> nn.Module:
        return cast(nn.Module, self.lightning_module.scorer.model)


class OneDevice(FolderCheckpoints, SingleDeviceStrategy):
    """Lightning's strategy of one device, with our checkpoints."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(device=ranks.device)
        self.ranks = ranks


class Sharded(FolderCheckpoints, ModelParallelStrategy):
    """Lightning's strategy for a model that is sharded already, with our checkpoints."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(data_parallel_size=ranks.world_size, tensor_parallel_size=1)
        self.ranks = ranks


class Environment(LightningEnvironment):
    """Tells Lightning about ranks that exist already."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Always: `training.launch` or a launcher outside has done it."""
        return True

    def world_size(self) -> int:
        """All ranks."""
        return self.ranks.world_size

    def global_rank(self) -> int:
        """This rank."""
        return self.ranks.rank

    def local_rank(self) -> int:
        """This rank on its node."""
        return self.ranks.local_rank

    def node_rank(self) -> int:
        """This node."""
        return self.ranks.rank // self.ranks.local_world_size

    def set_world_size(self, size: int) -> None:
        """Fixed."""

    def set_global_rank(self, rank: int) -> None:
        """Fixed."""

    def teardown(self) -> None:
        """Nothing was set up."""
