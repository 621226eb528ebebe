"""Questions with a few options: how they are put, and which option a model chooses.

By `likelihood` the options follow raw text and the likeliest wins, as in the LM Evaluation Harness's multiple choice,
zero-shot: by the sum of log-probabilities, not divided by length. By `chat_likelihood` a conversation lists lettered
options, and the likeliest letter wins as its answer. By `text` the same conversation is answered, and the letter is
read from the answer. Equal likelihoods choose nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.inference.likelihood import Passage
from multifaceted.records import Estimate, Likelihood, Prompt, Response, Sampling

LETTERS = "ABCDEFGH"
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=256)
"""How a question is answered in text: a choice is not drawn."""
ASK = "Answer with the letter alone."

_PREFIX = re.compile(r"(?:the\s+)?(?:(?:correct|right|best)\s+)?answer(?:\s+is\b\s*:?|\s*:)\s*", re.IGNORECASE)
_ALONE = re.compile(r"\(?([A-Z])[).:]*", re.IGNORECASE)
_LEADING = re.compile(r"\(([A-Z])\)|([A-Z])(?:[).:]+\s|\s*\n)", re.IGNORECASE)
_MARKED = re.compile(
    r"\(([A-Z])\)|^\s*([A-Z])[).:]|\banswer(?:\s+is\b|:)\s*\(?((?-i:[A-Z]))\b", re.MULTILINE | re.IGNORECASE
)
_ARTICLE = re.compile(r"^(?:the|an?)\s+")
_EMPHASIS = re.compile(r"[*_`\"'\u2018\u2019\u201c\u201d]")


class By(StrEnum):
    """How a choice is told."""

    LIKELIHOOD = "likelihood"
    CHAT_LIKELIHOOD = "chat_likelihood"
    TEXT = "text"


class Choice(NamedTuple):
    """A question as it is put.

    Attributes:
        question: what a conversation asks, before the lettered options.
        context: raw text that each option continues.
        options: what is chosen from, in the order shown, by what choosing it means.
    """

    question: str
    context: str
    options: Mapping[str, str]


def lettered(choice: Choice) -> str:
    """The question with its options, a line each."""
    options = [f"({letter}) {text}" for letter, text in zip(LETTERS, choice.options.values(), strict=False)]
    return "\n".join([choice.question, *options, "", ASK])


def read_choice(text: str, options: Sequence[str]) -> int | None:
    """The place of the option that an answer chooses; None where it does not choose one.

    Read are, with "The answer is" before it or not: a letter alone, `(B)`, `B.`, `B)` or `B:` and what comes after it,
    and the whole text of one option. An answer that marks a second letter chooses none, and so does any other.
    """
    plain = _EMPHASIS.sub("", text).strip()
    rest = plain[found.end() :] if (found := _PREFIX.match(plain)) else plain
    if (whole := _place_of_text(rest, options)) is not None:
        return whole
    if (chosen := _ALONE.fullmatch(rest) or _LEADING.match(rest)) is None:
        return None
    marked = {_letter(chosen), *map(_letter, _MARKED.finditer(plain))}
    place = LETTERS.find(_letter(chosen))
    return place if len(marked) == 1 and 0 <= place < len(options) else None


def _letter(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).upper()


def _place_of_text(text: str, options: Sequence[str]) -> int | None:
    """The option whose text this is, whatever the case, and but for an article before it and a full stop behind it."""

    def bare(words: str) -> str:
        return _ARTICLE.sub("", " ".join(_EMPHASIS.sub("", words).casefold().rstrip(".! \n").split()))

    places = [place for place, option in enumerate(options) if bare(option) == bare(text)]
    return places[0] if len(places) == 1 else None


def likeliest(logps: Sequence[float]) -> int | None:
    """The place of the highest; None where it is shared."""
    highest = max(logps)
    return logps.index(highest) if logps.count(highest) == 1 else None


@dataclass(kw_only=True, slots=True)
class ChoiceTask:
    """A bench of questions with options. Subclasses are dataclasses.

    Attributes:
        bench: its file or folder.
        by: how a choice is told. Likelihoods need a policy in this process.
        system: a system message before every question; by `likelihood` there is no conversation to have one.
    """

    bench_name: ClassVar[str]

    bench: Path | None = None
    by: By = By.LIKELIHOOD
    system: str | None = None

    def __post_init__(self) -> None:
        if self.system and self.by is By.LIKELIHOOD:
            raise ValueError(
                f"system is {self.system!r}, and by=likelihood scores raw text, which has no system message; set"
                f" by={By.CHAT_LIKELIHOOD.value} or by={By.TEXT.value}"
            )

    @property
    def name(self) -> str:
        """What the task is called in records: the bench, and how choices are told where not as in the paper."""
        return self.bench_name if self.by is By.LIKELIHOOD else f"{self.bench_name}_by_{self.by.value}"

    @property
    def by_likelihood(self) -> bool:
        """Whether likelihoods decide."""
        return self.by is not By.TEXT

    def choice(self, prompt: Prompt) -> Choice:
        """How a prompt of the bench is put."""
        raise NotImplementedError

    def scores(self, prompts: Sequence[Prompt], chosen: Mapping[str, str]) -> dict[str, Estimate]:
        """The metrics, from what is chosen, by prompt."""
        raise NotImplementedError

    def prompts(self, seed: int) -> list[Prompt]:
        """All of the bench; nothing is drawn, so the seed has no say. By `likelihood`, the instruction is raw text.

        Raises:
            DataError: the bench is missing or broken.
        """
        prompts = read_bench(self.bench_name, self.bench, BadRows(option=""))
        choices = [self.choice(prompt) for prompt in prompts]
        return [
            replace(
                prompt,
                system=self.system,
                instruction=choice.context if self.by is By.LIKELIHOOD else lettered(choice),
                sampling=GREEDY,
            )
            for prompt, choice in zip(prompts, choices, strict=True)
        ]

    def passages(self, prompts: Sequence[Prompt]) -> list[Passage]:
        """One an option: its text after raw text, or its letter as an answer."""
        passages = []
        for prompt in prompts:
            for place, text in enumerate(self.choice(prompt).options.values()):
                name = _passage_id(prompt, place)
                if self.by is By.LIKELIHOOD:
                    passages.append(Passage(id=name, context=prompt.instruction, text=f" {text}"))
                else:
                    passages.append(Passage(id=name, messages=prompt.messages(), text=LETTERS[place]))
        return passages

    def verdicts(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[dict[str, Any]]:
        """One a prompt: what its response chooses, or None."""
        rows = []
        for prompt in prompts:
            options = self.choice(prompt).options
            place = read_choice(responses[prompt.id].text, list(options.values()))
            rows.append({"id": prompt.id, "chosen": None if place is None else list(options)[place]})
        return rows

    def verdicts_of_likelihoods(
        self, prompts: Sequence[Prompt], likelihoods: Mapping[str, Likelihood]
    ) -> list[dict[str, Any]]:
        """One a prompt: what is likeliest, and of each option log-likelihood and tokens."""
        rows = []
        for prompt in prompts:
            names = list(self.choice(prompt).options)
            found = [likelihoods[_passage_id(prompt, place)] for place in range(len(names))]
            place = likeliest([each.logp for each in found])
            rows.append(
                {
                    "id": prompt.id,
                    "chosen": None if place is None else names[place],
                    "logps": dict(zip(names, (each.logp for each in found), strict=True)),
                    "tokens": dict(zip(names, (each.tokens for each in found), strict=True)),
                }
            )
        return rows

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """The bench's metrics; `unscored` is the share of prompts for which nothing is chosen."""
        chosen = {row["id"]: row["chosen"] for row in verdicts}
        unscored = bootstrap_mean([float(chosen.get(prompt.id) is None) for prompt in prompts])
        made = {name: value for name, value in chosen.items() if value is not None}
        return self.scores(prompts, made) | {f"{self.bench_name}/unscored": unscored}


def _passage_id(prompt: Prompt, place: int) -> str:
    return f"{prompt.id}#{LETTERS[place]}"
