"""The measurements on one GPU: a model of Mistral-7B's shape with random weights, of which the device holds one."""

from __future__ import annotations

GPU_STAGES = []
