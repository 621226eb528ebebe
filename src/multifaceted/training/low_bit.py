"""AdamW for weights in bf16 or state in 8 bits: torchao's, on one device as under FSDP2.

bitsandbytes, which the paper used, cuts state into the same blocks and codes it by the same map. It rounds weights in
bf16 to the nearest, though, and does not know FSDP2's tensors, so that a checkpoint could not change hands.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torchao.optim.subclass_8bit import OptimState8bit

BLOCK = 256
"""Values that share a scale, as in Dettmers et al. 2022 (arXiv 2110.02861) and bitsandbytes."""

LEAST = 4096
"""Values of the smallest tensor whose state is kept in 8 bits, as in bitsandbytes."""


def require_torchao(reason: str) -> None:
    """Refuse to go on without torchao.

    Raises:
        ValueError: `reason`, and how to install it.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ValueError(f"{reason} torchao, which is not installed: pip install --editable '.[torchao]'")


def low_bit_adamw(groups: Sequence[dict[str, Any]], *, eight_bit: bool, **settings: Any) -> Optimizer:
    """AdamW that computes in fp32 whatever weights and state are kept in.

    A step changes a weight by about the learning rate. In bf16, with 8 bits of mantissa, a change of less than 1/512 of
    the weight would be rounded away, so that most weights of a pretrained model would never move: weights in bf16 are
    rounded up or down at random instead, with the odds that make the mean exact (Gupta et al. 2015, arXiv 1502.02551).
    The draws come from torch's generator, which a training step seeds.

    The state is made here, because torchao would give small tensors and bf16 weights a state in bf16, whose second
    moment stands still at beta2=0.999, and would choose blocks by what one rank holds.

    Args:
        eight_bit: keep the state of large matrices in 8 bits, otherwise all of it in fp32.
        settings: arguments of torch.optim.AdamW.
    """
    from torchao.optim import AdamW8bit

    if any(isinstance(parameter, DTensor) for group in groups for parameter in group["params"]):
        # torch 2.13 keys what it has compiled by the whole tensor's shape, and would give a rank that holds three rows
        # of a matrix what another has compiled for two.
        torch._functorch.config.enable_autograd_cache = False
    optimizer: Optimizer = AdamW8bit(groups, **settings, block_size=BLOCK, bf16_stochastic_round=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            blocked = eight_bit and is_blocked(parameter)
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": _zeros(parameter, blocked=blocked, signed=True),
                "exp_avg_sq": _zeros(parameter, blocked=blocked, signed=False),
            }
    return optimizer


def plain_parts(name: str, state: Tensor) -> dict[str, Tensor]:
    """A tensor of optimizer state by flat name; one in 8 bits as its codes and their scales, which share its memory.

    The scales of a matrix of [rows, columns] are [rows, columns / 256]. Both are sharded by rows, so that a checkpoint
    is read by any number of ranks without a value being rounded again.
    """
    local: Any = state.to_local() if isinstance(state, DTensor) else state
    if hasattr(local, "codes"):
        codes, scale = local.codes, local.scale
    elif local.dtype is torch.uint8:  # a rank without rows
        codes, scale = local, torch.zeros(0)
    else:
        return {name: state}
    scale = scale.view(codes.shape[0], prod(codes.shape[1:]) // BLOCK)
    if isinstance(state, DTensor):
        codes = _laid_out_like(state, codes)
        scale = _laid_out_like(state, scale)
    return {f"{name}.codes": codes, f"{name}.scale": scale}


def is_blocked(parameter: Tensor) -> bool:
    """Whether the state of a whole parameter is cut into blocks: where each lies in one row, however rows are dealt."""
    return parameter.ndim >= 2 and parameter.numel() >= LEAST and prod(parameter.shape[1:]) % BLOCK == 0


def _zeros(parameter: Tensor, *, blocked: bool, signed: bool) -> Tensor:
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()
    state: Tensor
    if not blocked:
        state = torch.zeros_like(local, dtype=torch.float32)
    elif local.numel():
        state = _eight_bit(local, signed=signed)
    else:  # a rank without rows: torchao's type has no empty tensors
        state = torch.zeros_like(local, dtype=torch.uint8)
    if not isinstance(parameter, DTensor):
        return state
    # Where the shards are offloaded, from_local moves them to the device of the mesh.
    return _laid_out_like(parameter, state).to(parameter.device)


def _eight_bit(local: Tensor, *, signed: bool) -> OptimState8bit:
    from torchao.optim.subclass_8bit import OptimState8bit

    return OptimState8bit.zeros(local.shape, signed, BLOCK, local.device, dtype=torch.float32)


def _laid_out_like(target: DTensor, local: Tensor) -> DTensor:
    """This rank's rows as part of a tensor that has the rows of `target`."""
    shape = torch.Size([target.shape[0], *local.shape[1:]])
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(local, target.device_mesh, target.placements, run_check=False, shape=shape, stride=stride)
