"""The reference pass: equal to the policy's own scores, kept by content, resumed, and never stale."""

import errno
import fcntl
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from multifaceted.data.batch import Batch
from multifaceted.data.batches import EvaluationBatches
from multifaceted.model.attention import TREE_ATTENTION
from multifaceted.model.score import Scorer
from multifaceted.model.vocabulary import Projection
from multifaceted.training import reference
from multifaceted.training.module import NonFiniteLossError
from multifaceted.training.ranks import Ranks
from multifaceted.training.reference import content_key, reference_logps
from multifaceted.training.strategy import Arithmetic
from multifaceted.trees import TokenTree

BATCH = Batch(examples=1, max_tokens=64)
ARITHMETIC = Arithmetic("32-true")


def trees(num=40):
    generator = torch.Generator().manual_seed(0)

    def ids(most):
        return torch.randint(3, 50, (int(torch.randint(2, most, (), generator=generator)),), generator=generator)

    return [
        TokenTree(id=str(i), prompt=ids(12).tolist(), branches=[ids(9).tolist(), ids(9).tolist()], source="s")
        for i in range(num)
    ]


@pytest.fixture
def scorer(monkeypatch):
    """Counts its forward passes in `scorer.passes`; parts are of four rows."""
    monkeypatch.setattr(reference, "PART_TOKENS", 4 * BATCH.max_tokens)
    torch.manual_seed(0)
    shape = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = AutoConfig.for_model("llama", num_key_value_heads=1, pad_token_id=0, **shape)
    counted = Scorer(AutoModelForCausalLM.from_config(config, attn_implementation=TREE_ATTENTION), reward=False)
    counted.passes = 0
    counted.register_forward_hook(lambda *_: setattr(counted, "passes", counted.passes + 1))
    return counted


def values(scorer, cache, many=None, batch=BATCH):
    scorer.passes = 0
    return reference_logps(scorer, many or trees(), batch, cache, Ranks(), ARITHMETIC)


def parts(cache):
    return sorted(cache.rglob("part-*.json"))


@torch.no_grad()
def test_values_are_those_of_the_scorer_and_are_computed_once(scorer, tmp_path):
    found = values(scorer, tmp_path)
    assert scorer.passes == len(EvaluationBatches(trees=trees(), batch=BATCH)) > 8
    single = Batch(examples=1, packing=False, share_prefix=False)
    for position in range(len(batches := EvaluationBatches(trees=trees(), batch=single))):
        batch = batches[position]
        logps = scorer(batch.rows)
        for index, name in enumerate(batch.ids):
            expected = logps[batch.chosen[index] : batch.chosen[index] + 2]
            torch.testing.assert_close(torch.tensor(found[name]), expected, atol=1e-5, rtol=1e-5)
    assert values(scorer, tmp_path) == found and scorer.passes == 0


def test_an_interrupted_pass_goes_on_with_the_part_it_stood_at(scorer, tmp_path, monkeypatch):
    whole = values(scorer, tmp_path / "whole")
    num_passes = scorer.passes

    def stop(*_):
        if scorer.passes == 10:
            raise KeyboardInterrupt

    handle = scorer.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        values(scorer, tmp_path / "cut")
    handle.remove()
    assert len(parts(tmp_path / "cut")) == 2, "two parts of four passes each"
    assert values(scorer, tmp_path / "cut") == whole
    assert scorer.passes == num_passes - 8


@pytest.mark.parametrize("damage", ["cut off", "not text", "other examples", "a value missing", "another version"])
def test_a_broken_part_is_computed_again_and_said(damage, scorer, tmp_path, caplog):
    whole = values(scorer, tmp_path)
    path = parts(tmp_path)[1]
    content = json.loads(path.read_text())
    first = next(iter(content["logps"]))
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "not text":
        path.write_bytes(b"\xff\xfe\x00")
    elif damage == "other examples":
        content["logps"]["other"] = content["logps"].pop(first)
    elif damage == "a value missing":
        content["logps"][first].pop()
    else:
        content["version"] = 0
    if damage in ("other examples", "a value missing", "another version"):
        path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert values(scorer, tmp_path) == whole
    assert scorer.passes == 4 and str(path) in caplog.text
    assert values(scorer, tmp_path) == whole and scorer.passes == 0, "it was mended"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_said(number, scorer, tmp_path, monkeypatch, caplog):
    def refused(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(reference, "write_json", refused)
    with caplog.at_level(logging.WARNING):
        values(scorer, tmp_path)
    assert "not kept" in caplog.text and not parts(tmp_path)


def test_without_a_place_for_a_cache_values_are_computed_and_that_is_said(scorer, tmp_path, caplog):
    """Neither parts nor their locks can be made below a file."""
    whole, blocked = values(scorer, tmp_path / "cache"), tmp_path / "blocked"
    blocked.write_text("a file")
    with caplog.at_level(logging.WARNING):
        assert values(scorer, blocked) == whole
    assert "not kept" in caplog.text and scorer.passes > 0


def test_a_change_of_anything_that_matters_is_a_miss(scorer):
    def key(many=None, batch=BATCH, arithmetic=ARITHMETIC):
        return content_key(scorer, many or trees(), arithmetic, batch)

    keys = [key(), key(trees()[:-1]), key(list(reversed(trees()))), key(arithmetic=Arithmetic("bf16-true"))]
    moved = trees()
    moved[3].branches[1][0] += 1
    keys.append(key(moved))
    # The same ids, cut elsewhere: as where a template ends the prompt later.
    moved = trees()
    path = [*moved[3].prompt.tolist(), *moved[3].branches[0].tolist()]
    moved[3].prompt, moved[3].branches[0] = (torch.tensor(part).int().numpy() for part in (path[:4], path[4:]))
    keys.append(key(moved))
    with torch.no_grad():
        next(scorer.model.parameters())[0, 0] += 1e-3
    keys.append(key())
    scorer.model.config.rms_norm_eps *= 2
    keys.append(key())
    scorer.projection = Projection.LIGER
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_value_that_is_not_finite_names_the_example(scorer, tmp_path):
    with torch.no_grad():
        scorer.model.get_output_embeddings().weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"example '\d+' are \[nan"):
        values(scorer, tmp_path)


def test_a_rank_without_a_row_of_its_own_adds_nothing(scorer, monkeypatch):
    """It repeats a tree to stay in step; that tree's value is another rank's."""
    many = trees(1)
    batches = EvaluationBatches(trees=many, batch=BATCH, rank=1, world_size=2)
    assert len(batches) == 1 and not batches[0].counts
    assert reference._score(scorer, batches, Ranks(), ARITHMETIC) == {}


def test_a_job_waits_for_another_that_computes_the_same_part(scorer, tmp_path):
    whole = values(scorer, tmp_path)
    path = parts(tmp_path)[0]
    content = path.read_bytes()
    path.unlink()
    with path.with_name(f".{path.name}.lock").open("w") as lock, ThreadPoolExecutor(1) as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = other.submit(values, scorer, tmp_path)
        with pytest.raises(TimeoutError):
            found.result(timeout=0.5)
        path.write_bytes(content)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert found.result(timeout=60) == whole and scorer.passes == 0
