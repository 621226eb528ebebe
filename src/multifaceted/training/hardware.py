"""What devices can do, by their vendors' data sheets: the one table of peaks."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import torch

GIB = 1024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A kind of device.

    Attributes:
        name: what `plan.device` calls it.
        memory_gib: what one process can use of it.
        tflops: peak of dense products in bf16 with sums in fp32, in TFLOP/s; None where no data sheet says it.
    """

    name: str
    memory_gib: float
    tflops: float | None = None

    @property
    def flops(self) -> float | None:
        """The peak in FLOP/s."""
        return None if self.tflops is None else self.tflops * 1e12


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Whether a run is planned instead of trained, and for what.

    Attributes:
        enabled: `plan=true` for short.
        device: a name of the table below; unset, what is here.
        num_devices: how many of them; unset, those of `trainer.devices`.
        utilisation: share of its peak at which a device computes, recomputation and padding included.
        price: of a device for an hour, in USD.
    """

    enabled: bool = False
    device: str | None = None
    num_devices: int | None = None
    utilisation: float = 0.45
    price: float | None = None

    def __post_init__(self) -> None:
        if not self.enabled:
            changed = [
                f"plan.{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default
            ]
            if changed:
                raise ValueError(f"{', '.join(changed)} without a plan: add plan=true, or leave it out")
            return
        if self.device is not None:
            named_device(self.device)
        if self.num_devices is not None and self.num_devices < 1:
            raise ValueError(f"num_devices is {self.num_devices}; it must be at least 1")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation is {self.utilisation}; it is a share of the peak, in (0, 1]")
        if self.price is not None and self.price < 0:
            raise ValueError(f"price is {self.price}; it must not be negative")


# Data sheets give NVIDIA's tensor-core peaks "with sparsity" nearly everywhere; the dense ones below are half of those.
# Memory is what CUDA reports, a little less than is sold.
_TABLE: dict[str, tuple[Device, tuple[str, ...]]] = {
    device.name: (device, reported)
    for device, reported in (
        # NVIDIA A100 Tensor Core GPU data sheet (2021)
        (
            Device(name="a100_40gb", memory_gib=39.4, tflops=312),
            ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
        ),
        (Device(name="a100_80gb", memory_gib=79.1, tflops=312), ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe")),
        # NVIDIA H100 Tensor Core GPU data sheet (2023)
        (Device(name="h100", memory_gib=79.1, tflops=989), ("NVIDIA H100 80GB HBM3",)),
        (Device(name="h100_pcie", memory_gib=79.1, tflops=756), ("NVIDIA H100 PCIe",)),
        # NVIDIA H200 Tensor Core GPU data sheet (2024)
        (Device(name="h200", memory_gib=139.8, tflops=989), ("NVIDIA H200",)),
        # NVIDIA DGX B200 data sheet (2024): 72 PFLOP/s of FP8 for eight GPUs, with sparsity; a quarter dense in bf16
        (Device(name="b200", memory_gib=178.4, tflops=2250), ("NVIDIA B200",)),
        # NVIDIA L40S data sheet (2023)
        (Device(name="l40s", memory_gib=44.4, tflops=362), ("NVIDIA L40S",)),
        # Amazon EC2 G5 instances: 70 TFLOP/s in 16 bits, of NVIDIA's A10 made for AWS
        (Device(name="a10g", memory_gib=22.0, tflops=70), ("NVIDIA A10G",)),
        # NVIDIA Ada GPU Architecture whitepaper (2022), appendix A: GeForce RTX 4090, FP32 accumulate
        (Device(name="rtx4090", memory_gib=23.5, tflops=165), ("NVIDIA GeForce RTX 4090",)),
        # NVIDIA Ampere GA102 GPU Architecture whitepaper (2020), table 2: GeForce RTX 3090, FP32 accumulate
        (Device(name="rtx3090", memory_gib=23.5, tflops=71), ("NVIDIA GeForce RTX 3090",)),
    )
}


def named_device(name: str) -> Device:
    """A device of the table.

    Raises:
        ValueError: it has none of that name.
    """
    if name not in _TABLE:
        raise ValueError(f"device is {name!r}; known are {', '.join(_TABLE)}")
    return _TABLE[name][0]


def local_device(device_type: str) -> Device:
    """What a process of this machine computes on; its peak only where the table knows it."""
    if device_type != "cuda":
        return Device(name="cpu", memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB)
    reported = torch.cuda.get_device_name()
    known = next((device for device, names in _TABLE.values() if reported in names), None)
    return Device(
        name=known.name if known else reported,
        memory_gib=torch.cuda.get_device_properties().total_memory / GIB,
        tflops=known.tflops if known else None,
    )
