"""Peak memory of this process: resident on a CPU, allocated by torch on a GPU. In GB of 1e9 bytes."""

from __future__ import annotations

import contextlib
import resource
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch


def peak_gb(device: str) -> float:
    """The most that was held since the process began, or since `reset_peak`."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def resident_gb() -> float:
    """What is resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


class AnonymousPeak:
    """The most memory, without pages of files, that the process held meanwhile: `gb`, looked up 50 times a second."""

    def __init__(self) -> None:
        self.gb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            status = Path("/proc/self/status").read_text()
            self.gb = max(self.gb, int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e9)


def reset_peak(device: str) -> None:
    """Begin to watch for the peak anew, where the system can (`man 5 proc_pid_clear_refs`)."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def static_gb(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Weights, gradients of those that are trained, and optimizer state."""
    import torch

    def size(tensor: Any) -> int:
        if hasattr(tensor, "__tensor_flatten__"):  # torchao keeps a moment in 8 bits as several tensors
            return sum(size(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
        return int(tensor.numel() * tensor.element_size())

    parameters = list(model.parameters())
    state = sum(
        size(value)
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    )
    return (sum(map(size, parameters)) + sum(size(p) for p in parameters if p.requires_grad) + state) / 1e9
