"""The loader of a fit."""

import os
import signal

import torch
from torch.utils.data import Dataset, get_worker_info

from multifaceted.config import build
from multifaceted.data.batch import Batch
from multifaceted.data.batches import TrainingBatches
from multifaceted.training.config import TrainConfig
from multifaceted.training.fit import _loader
from multifaceted.training.prepare import training_batches
from multifaceted.training.ranks import STOP_SIGNALS, Ranks
from multifaceted.trees import TokenTree
from tests.conftest import composed


def test_a_worker_lays_out_the_steps_that_the_process_would():
    trees = [TokenTree(id=str(i), prompt=[1] * (3 + i % 5), branches=[[5] * 4, [6]], source="s") for i in range(20)]
    batches = TrainingBatches(trees=trees, batch=Batch(tokens=32, max_tokens=16, look_ahead=4), num_epochs=2, seed=0)
    here, ahead = (list(_loader(batches, device)) for device in ("cpu", "cuda"))
    assert len(here) == len(ahead) == batches.num_steps
    for ours, theirs in zip(ahead, here, strict=True):
        assert ours.position == theirs.position and ours.work == theirs.work
        for a, b in zip(ours.passes, theirs.passes, strict=True):
            assert a.ids == b.ids and torch.equal(a.rows.input_ids, b.rows.input_ids)


class StruckByEach(Dataset):
    """Sends its own process every stop signal before it answers."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        assert get_worker_info() is not None and index < 3
        for number in STOP_SIGNALS:
            os.kill(os.getpid(), number)
        return index


def test_a_signal_to_all_processes_of_a_job_does_not_end_the_worker():
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    assert list(_loader(StruckByEach(), "cuda")) == [0, 1, 2]
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers


def test_steps_for_a_gpu_are_laid_out_for_one():
    config = build(composed("train"), TrainConfig)
    assert training_batches(config, [], Ranks(device_type="cuda")).on_gpu
    assert not training_batches(config, [], Ranks()).on_gpu
