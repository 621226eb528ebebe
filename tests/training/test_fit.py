"""The loader of a fit."""

import torch

from multifaceted.data.batch import Batch
from multifaceted.data.batches import TrainingBatches
from multifaceted.training.fit import _loader
from multifaceted.trees import TokenTree


def test_a_worker_lays_out_the_steps_that_the_process_would():
    trees = [TokenTree(id=str(i), prompt=[1] * (3 + i % 5), branches=[[5] * 4, [6]], source="s") for i in range(20)]
    batches = TrainingBatches(trees=trees, batch=Batch(tokens=32, max_tokens=16, look_ahead=4), num_epochs=2, seed=0)
    here, ahead = (list(_loader(batches, device)) for device in ("cpu", "cuda"))
    assert len(here) == len(ahead) == batches.num_steps
    for ours, theirs in zip(ahead, here, strict=True):
        assert ours.position == theirs.position and ours.work == theirs.work
        for a, b in zip(ours.passes, theirs.passes, strict=True):
            assert a.ids == b.ids and torch.equal(a.rows.input_ids, b.rows.input_ids)
