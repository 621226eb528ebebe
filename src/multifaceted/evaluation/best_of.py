"""Best-of-N: of several responses to a prompt the one that a reward model likes most, as a curve over N.

The paper takes the best of 64 by Janus-RM (arXiv 2405.17977, best-of-N sampling). The responses for a smaller N are the
first of those for a larger one, so each is drawn and rewarded once.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from multifaceted.inference.files import ResponseFile
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.remote import RemoteEngine
from multifaceted.inference.requests import PAPER, Engine, EngineError, Request
from multifaceted.inference.rewards import Answered, RewardModel
from multifaceted.model.export import folder_fingerprint
from multifaceted.model.folder import check_model_folder, refuse_policy
from multifaceted.record_files import append_jsonl, drop_half_a_line, read_records, write_jsonl
from multifaceted.records import SAMPLES, Prompt, Response, Sample

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds of rewards that a kill loses at most."""


@dataclass(kw_only=True, slots=True)
class BestOf:
    """Which reward model chooses, and among how many.

    Attributes:
        reward_model: a folder that `train.py +experiment=reward_model` exported.
        sizes: every N, ascending.
    """

    reward_model: Path
    sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64])

    def __post_init__(self) -> None:
        if not self.sizes or self.sizes[0] < 1 or self.sizes != sorted({*self.sizes}):
            raise ValueError(f"sizes is {self.sizes}; name numbers from 1 on, ascending, such as [1,4,16]")

    def fingerprint(self) -> str:
        """Of the reward model, which is refused here if it is none."""
        refuse_policy(str(self.reward_model), check_model_folder(self.reward_model).get("architectures"))
        return folder_fingerprint(self.reward_model)


def check_samples(prompts: Sequence[Prompt], engine: PolicyEngine | RemoteEngine | ResponseFile) -> None:
    """Refuse what several responses cannot be had of.

    Raises:
        EngineError: all of them would be equal, or there are several turns.
    """
    if isinstance(engine, ResponseFile):
        raise EngineError("engine=file holds one response a prompt; best_of draws several: engine=sampled or server")
    for prompt in prompts:
        if prompt.follow_ups:
            raise EngineError(
                f"prompt {prompt.id!r} goes on after its first answer; best_of compares answers to the same"
                " conversation, so choose a task of one turn"
            )
        wanted = prompt.sampling.or_else(PAPER).temperature if engine.temperature is None else engine.temperature
        if wanted == 0:
            raise EngineError(
                f"prompt {prompt.id!r} would be answered at temperature 0, so all of its responses would be equal;"
                " sample them: engine=sampled, or of a server engine.temperature=1"
            )


def choose(
    best_of: BestOf, samples: Sequence[Sample], prompts: Sequence[Prompt], folder: Path
) -> dict[int, dict[str, Sample]]:
    """By N, for each prompt the sample that is chosen. A reward that a sample has is not computed again.

    Args:
        samples: as `draw` gives them.

    Raises:
        EngineError: from the reward model; what was rewarded before is written.
    """
    add_rewards(partial(RewardModel.load, best_of.reward_model), prompts, samples, folder)
    return {size: best_samples(samples, size) for size in best_of.sizes}


def draw(engine: Engine, prompts: Sequence[Prompt], number: int, seed: int, folder: Path) -> list[Sample]:
    """So many responses to each prompt, each written to the folder's `samples.jsonl` as it arrives.

    The first of them is what the prompt is answered with where only one is asked for.

    Raises:
        EngineError: from the engine; what was answered before is written.
    """
    path = folder / SAMPLES
    drop_half_a_line(path)
    samples = read_records(path, Sample)
    known = {(sample.id, sample.sample) for sample in samples}
    wanted: dict[str, tuple[str, int]] = {}
    requests = []
    for prompt in prompts:
        for place in range(number):
            if (prompt.id, place) not in known:
                name = json.dumps([prompt.id, place]) if place else prompt.id
                wanted[name] = (prompt.id, place)
                sampling = prompt.sampling.or_else(PAPER)
                requests.append(Request(id=name, messages=prompt.messages(), sample=place, sampling=sampling))

    def replies() -> Iterator[Sample]:
        for reply in engine.answer(requests, seed):
            name, place = wanted.pop(reply.id)
            yield Sample(id=name, sample=place, text=reply.text, finished=reply.finished)

    if requests:
        samples += append_jsonl(path, replies())
    if wanted:
        raise EngineError(
            f"{len(wanted)} responses are missing, first {next(iter(wanted))!r}; the same command asks again"
        )
    places = {prompt.id: place for place, prompt in enumerate(prompts)}
    return sorted(samples, key=lambda sample: (places[sample.id], sample.sample))


def add_rewards(
    model: Callable[[], RewardModel], prompts: Sequence[Prompt], samples: Sequence[Sample], folder: Path
) -> None:
    """Give a reward to every sample that has none, and write them to the folder's `samples.jsonl`.

    Args:
        model: loads it; not called where all rewards are there.

    Raises:
        EngineError: from the reward model; what was rewarded before is written.
    """
    pending = [sample for sample in samples if sample.reward is None]
    if pending:
        messages = {prompt.id: prompt.messages() for prompt in prompts}
        asked = [Answered(id=s.id, messages=messages[s.id], response=s.text) for s in pending]
        written = time.monotonic()
        try:
            for place, (value, cut) in model().of(asked):
                pending[place].reward, pending[place].cut = value, cut
                if time.monotonic() - written > EVERY:
                    write_jsonl(folder / SAMPLES, samples)
                    written = time.monotonic()
        finally:
            write_jsonl(folder / SAMPLES, samples)
    for number, what in (
        (sum(sample.reward is None for sample in samples), "spell a special token and get no reward"),
        (sum(sample.cut for sample in samples), "are longer than the reward model reads; it saw their beginning"),
    ):
        if number:
            log.warning("%d of %d responses %s", number, len(samples), what)


def best_samples(samples: Sequence[Sample], size: int) -> dict[str, Sample]:
    """By prompt the sample with the highest reward among the first `size`; the earliest of equal ones.

    One without a reward is chosen only where no other has one.
    """
    best: dict[str, Sample] = {}
    for sample in samples:
        if sample.sample < size and (sample.id not in best or _order(sample) > _order(best[sample.id])):
            best[sample.id] = sample
    return best


def _order(sample: Sample) -> tuple[float, int]:
    return (-math.inf if sample.reward is None else sample.reward, -sample.sample)


def write_chosen(
    best: Mapping[str, Sample], known: Mapping[str, Response], write: Callable[[Collection[Response]], None]
) -> dict[str, Response]:
    """Samples as the responses of an evaluation, written; `known` ones are the same."""
    chosen = {name: Response(id=name, text=sample.text, finished=sample.finished) for name, sample in best.items()}
    write(chosen.values())
    return chosen
