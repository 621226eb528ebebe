"""The processes of one training job: who this one is, what it runs on, and how it talks to the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""What ends a run with its state saved: Ctrl-C; `kill`, `scancel`, pre-emption; SLURM's word that time is nearly up.

The last has a number of its own because a job that is out of time asks to be queued again, a cancelled one does not.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among the job's processes.

    Attributes:
        rank: of `world_size`, over all nodes.
        local_rank: of `local_world_size`, on this node.
        device: "cpu" or "cuda".
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device_type: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    @property
    def on_gpu(self) -> bool:
        """Whether this process computes on a GPU."""
        return self.device_type == "cuda"

    @property
    def num_nodes(self) -> int:
        """Nodes of the job."""
        return self.world_size // self.local_world_size

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        if self.device_type == "cpu":
            return torch.device("cpu")
        # With srun's --gpus-per-task=1 every process sees one GPU, its own.
        return torch.device(self.device_type, self.local_rank % torch.cuda.device_count())

    def barrier(self) -> None:
        """Wait for all ranks."""
        if dist.is_initialized():
            dist.barrier()

    def from_first(self, function: Callable[[], T]) -> T:
        """What `function` returns on the first rank, on every rank; its error, too, is raised on every rank."""
        if self.world_size == 1:
            return function()
        box: list[T | Exception | None] = [None]
        if self.is_first:
            try:
                box = [function()]
            except Exception as error:
                box = [error]
        dist.broadcast_object_list(box, src=0)
        if isinstance(box[0], Exception):
            raise box[0]
        return cast(T, box[0])

    def maximum(self, value: int) -> int:
        """The greatest of all ranks' values."""
        if self.world_size == 1:
            return value
        box = torch.tensor(value)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


def launched_externally(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher (torchrun, or srun with several tasks) has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in environment or _is_srun_task(environment)


def is_restart(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this job before: torchrun after a rank died, SLURM after a requeue."""
    return any(int(environment.get(f"{name}_RESTART_COUNT") or 0) > 0 for name in ("TORCHELASTIC", "SLURM"))


def _is_srun_task(environment: Mapping[str, str]) -> bool:
    # SLURM_NTASKS and SLURM_PROCID are also set in a batch script that calls python without srun.
    return int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def adopt_slurm(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Say in torchrun's variables what srun says in its own, so that the rest knows one launcher only.

    Raises:
        ValueError: the nodes have different numbers of tasks.
    """
    if not _is_srun_task(environment) or "RANK" in environment:
        return
    from lightning.fabric.plugins.environments import SLURMEnvironment

    num_tasks, num_nodes = int(environment["SLURM_STEP_NUM_TASKS"]), int(environment["SLURM_STEP_NUM_NODES"])
    if num_tasks % num_nodes:
        raise ValueError(
            f"srun started {num_tasks} tasks on {num_nodes} nodes; every node needs the same number:"
            " set --ntasks-per-node"
        )
    first_node = SLURMEnvironment.resolve_root_node_address(environment["SLURM_STEP_NODELIST"])
    step = int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])
    environment |= {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": str(num_tasks),
        "LOCAL_WORLD_SIZE": str(num_tasks // num_nodes),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_node,
        # Below Linux's ephemeral ports, and another one for every job step of a node.
        "MASTER_PORT": environment.get("MASTER_PORT") or str(12_000 + step % 20_000),
    }


@contextmanager
def joined(device_type: str, *, alone: bool) -> Iterator[Ranks]:
    """Join the job's other processes, and leave them at the end.

    Args:
        device_type: "cpu" (gloo) or "cuda" (NCCL).
        alone: whether to form a process group even when there is one process, as sharding needs.

    Within another `joined` the group is that one's: a second one through the same store would wait forever.
    """
    adopt_slurm()
    several = launched_externally()
    ranks = Ranks(
        rank=int(os.environ["RANK"]) if several else 0,
        world_size=int(os.environ["WORLD_SIZE"]) if several else 1,
        local_rank=int(os.environ["LOCAL_RANK"]) if several else 0,
        local_world_size=int(os.environ["LOCAL_WORLD_SIZE"]) if several else 1,
        device_type=device_type,
    )
    if dist.is_initialized() or (ranks.world_size == 1 and not alone):
        yield ranks
        return
    if device_type == "cpu" and ranks.local_world_size > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks.local_world_size))
    backend = "gloo" if device_type == "cpu" else "cpu:gloo,cuda:nccl"
    if device_type != "cpu":
        torch.cuda.set_device(ranks.device)
    if several:
        dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.world_size)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
