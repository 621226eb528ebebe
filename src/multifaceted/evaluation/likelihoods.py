"""`likelihoods.jsonl`: asked of a policy in this process, a line as it arrives, and read back to go on after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multifaceted.inference.likelihood import LikelihoodModel, Passage
from multifaceted.inference.policy import PolicyEngine
from multifaceted.record_files import append_jsonl, drop_half_a_line, read_records
from multifaceted.records import Likelihood


def likelihoods(passages: Sequence[Passage], policy: Path, engine: PolicyEngine, path: Path) -> dict[str, Likelihood]:
    """The likelihood of every passage, by id; what the file has is not asked again.

    Args:
        policy: a model's folder. It needs a chat template for conversations only.
        engine: how a conversation is put to it, and where it runs.
        path: the `likelihoods.jsonl`.

    Raises:
        EngineError: the policy cannot score a passage; what was scored before is in the file.
        RecordError: a line that is no likelihood.
    """
    drop_half_a_line(path)
    found = read_likelihoods(path)
    missing = [passage for passage in passages if passage.id not in found]
    if missing:
        model = LikelihoodModel.load(policy, engine.device, engine.template, system_in_user=engine.system_in_user)
        found |= {each.id: each for each in append_jsonl(path, model.score(missing))}
    return found


def read_likelihoods(path: Path) -> dict[str, Likelihood]:
    """The lines of a `likelihoods.jsonl` by id.

    Raises:
        RecordError: a line that is no likelihood.
    """
    return {each.id: each for each in read_records(path, Likelihood)}
