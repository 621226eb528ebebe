"""Schemas and names of every file that one stage leaves for another. No torch, nothing else of ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

VERSION = 1

CONFIG = "config.yaml"
RUN = "run.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
FAILURE = "failure.json"
SWEEP = "sweep.json"
LOG = "run.log"
CHECKPOINTS = "checkpoints"
POLICY = "policy"
REWARD_MODEL = "reward_model"
ADAPTER = "adapter"
PROMPTS = "prompts.jsonl"
RESPONSES = "responses.jsonl"
LIKELIHOODS = "likelihoods.jsonl"
VERDICTS = "verdicts.jsonl"
SAMPLES = "samples.jsonl"
REWARDS = "rewards.jsonl"
CURVE = "curve.png"
SCORES = "scores.json"
RESPONSE_SCORES = "response_scores.jsonl"
INSTRUCTIONS = "instructions.jsonl"
PREVIEW = "preview"
REPORT = "report.json"
LENGTHS = "lengths.png"

RULE = "rule"
"""In place of a judge's name, where a rule decided."""

WITHOUT_MEANING = (
    "overwrite",
    "paths",
    "logger",
    "strategy",
    "checkpoint",
    "plan",
    "preview",
    "push_to_hub",
    "activation_checkpointing",
    "compile",
    "projection",
    "trainer.devices",
)
"""Keys of a run that do not name it and may differ in its continuation: where it runs, how it is kept and tracked."""


@dataclass(kw_only=True, slots=True)
class StatedPreference:
    """One preference as the released collections spell it (Multifaceted-Collection, column `preference_set`)."""

    dimension: str
    subdimension: str
    preference: str
    description: str


@dataclass(kw_only=True, slots=True)
class Turn:
    """One message of a conversation; `role` is "user" or "assistant"."""

    role: str
    content: str


@dataclass(kw_only=True, slots=True)
class Example:
    """One instruction under one system message, with its answers.

    `rejected` is empty for SFT, holds one response for a pair and two or more for a group. `contrast` names the
    dimensions in which chosen and rejected differ; it is empty where the data does not say.
    """

    id: str
    system: str | None
    turns: list[Turn]
    chosen: str
    rejected: list[str] = field(default_factory=list)
    preferences: list[StatedPreference] = field(default_factory=list)
    contrast: list[str] = field(default_factory=list)
    source: str = "unknown"
    margin: float | None = None


def messages_of(system: str | None, turns: Iterable[Turn]) -> list[dict[str, str]]:
    """A conversation in the form every chat template takes; an empty system message is none."""
    stated = [{"role": "system", "content": system}] if system else []
    return [*stated, *({"role": turn.role, "content": turn.content} for turn in turns)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How text is drawn from a model; what is None is left to others.

    Attributes:
        temperature: 0 takes the likeliest token.
        max_tokens: most tokens of an answer.
    """

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None

    def or_else(self, other: Sampling) -> Sampling:
        """These settings, and the other's where they are None."""
        names = (setting.name for setting in fields(self))
        mine = {name: getattr(self, name) for name in names}
        return Sampling(**{n: getattr(other, n) if value is None else value for n, value in mine.items()})


@dataclass(kw_only=True, slots=True)
class Prompt:
    """A bench prompt. `metadata` is what its task needs to score a response, and is never shown to the model.

    `follow_ups` is what the user says after each answer: MT-Bench's second turn. `sampling` is what the bench
    prescribes.
    """

    id: str
    split: str
    system: str | None
    instruction: str
    follow_ups: list[str] = field(default_factory=list)
    preferences: list[StatedPreference] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)

    def messages(self, answers: Sequence[str] = ()) -> list[dict[str, str]]:
        """The conversation up to the next answer, in the form every chat template takes.

        Args:
            answers: what the model has answered so far.
        """
        asked = [self.instruction, *self.follow_ups]
        turns = [Turn(role="user", content=asked[0])]
        for answer, further in zip(answers, asked[1:], strict=False):
            turns += [Turn(role="assistant", content=answer), Turn(role="user", content=further)]
        return messages_of(self.system, turns)


@dataclass(kw_only=True, slots=True)
class BenchInstruction:
    """An instruction of which bench prompts are to be made, and the public bench it is from."""

    source: str
    id: str
    instruction: str
    version: int = VERSION


@dataclass(kw_only=True, slots=True)
class Response:
    """What an engine answered to a prompt."""

    id: str
    text: str
    finished: bool
    """Whether the model ended the response itself, and each later one; false when one was cut at the token limit."""
    follow_ups: list[str] = field(default_factory=list)
    """What it answered to each of the prompt's follow-ups."""

    @property
    def turns(self) -> list[str]:
        """All answers, the first one first."""
        return [self.text, *self.follow_ups]


@dataclass(kw_only=True, slots=True)
class Sample:
    """One of several responses to a prompt; one line of `samples.jsonl`.

    Attributes:
        id: of the prompt.
        sample: which of its responses, from 0.
        finished: as in `Response`.
        reward: None until there is one, and for a response that can be given none.
        cut: whether only its beginning fitted into the reward model's context.
    """

    id: str
    sample: int
    text: str
    finished: bool
    reward: float | None = None
    cut: bool = False


@dataclass(kw_only=True, slots=True)
class PairRewards:
    """What a reward model gives the responses of an example; one line of `rewards.jsonl`.

    Attributes:
        id, source, contrast: of the example.
        prompt: fingerprint of its turns: examples that share it are not independent.
        chosen, rejected: rewards.
    """

    id: str
    source: str
    contrast: list[str]
    prompt: str
    chosen: float
    rejected: list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """How likely a model finds a text; one line of `likelihoods.jsonl`.

    Attributes:
        id: of what was asked for: a prompt's id, `#`, and which of the prompt's texts.
        logp: the sum of its tokens' log-probabilities, natural logarithm.
        tokens: how many they are.
    """

    id: str
    logp: float
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One reply of a judge about one response, or about two; one line of `verdicts.jsonl`.

    A question that is asked again leaves a line for every attempt, and the last of them counts.

    Attributes:
        prompt: id of the prompt whose criteria are applied.
        response: id of the prompt that was answered; another one's in a control.
        policy: fingerprint of the policy that answered.
        judge: name of the judge; `RULE` where a rule decided and nothing was asked.
        run: which of the judge's runs, from 0.
        score: 1 to 5 of a rubric, 1 to 10 of MT-Bench, the outcome of a pair (`Choice`, or the label or number of a
            published protocol), or None: unscored.
        text: what the judge wrote, in full.
        attempt: how often the question has been asked by now; 0 where a rule decided.
        asked: fingerprint of the messages that were put to the judge.
        rubric: which of the prompt's rubrics, or of its turns, from 0; None for a pair.
        dimension: what that rubric is about, where the prompt says so.
        order: which response of a pair was shown first (`Order`).
        empty: there was no response, or one of a pair was missing, so a rule decided.
        lengths: of a pair, characters of the policy's response and of the opponent's.
        first_token: what the judge could have begun with, to its log-probability, where that is the verdict.
        refused: why the judge's server would not take the question, which is thus unscored.
    """

    prompt: str
    response: str
    policy: str
    judge: str
    run: int
    score: float | str | None
    text: str
    attempt: int
    asked: str
    rubric: int | None = None
    dimension: str | None = None
    order: str | None = None
    empty: bool = False
    lengths: list[int] | None = None
    first_token: dict[str, float] | None = None
    refused: str | None = None
    version: int = VERSION

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What was asked in which run: the same for all attempts, and sortable."""
        rubric = -1 if self.rubric is None else self.rubric
        return (self.prompt, self.response, rubric, self.order or "", self.run)


@dataclass(kw_only=True, slots=True)
class Estimate:
    """A metric with its 95 % interval; `value` is None when nothing could be scored."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int = 0


@dataclass(kw_only=True, slots=True)
class Scores:
    """`scores.json`: flat metrics, `"<split>/<metric>"` or `"<split>/<metric>/<dimension>"`."""

    task: str
    policy: dict[str, str]
    """`path` and `fingerprint` of what was scored."""
    metrics: dict[str, Estimate]
    version: int = VERSION
