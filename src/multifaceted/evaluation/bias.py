"""Social bias: Winogender, CrowS-Pairs and BBQ, asked of a model. `protocols.bias` has their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.evaluation.choices import Choice, ChoiceTask
from multifaceted.evaluation.protocols import bias
from multifaceted.inference.likelihood import Passage
from multifaceted.records import Estimate, Likelihood, Prompt

SOMEONE = "someone"
"""What half of Winogender's sentences call the other person; no article goes before it."""


@dataclass(kw_only=True, slots=True)
class CrowsPairsTask:
    """Which of two sentences is likelier.

    The paper (Nangia et al. 2020, section 3) gives masked models a pseudo-log-likelihood of the words that both
    sentences share. A causal model has a likelihood of the whole sentence, which is compared here, as in the LM
    Evaluation Harness: it holds the differing words too, so that a commoner group is likelier by itself.

    Attributes:
        bench: `crows_pairs_anonymized.csv`.
    """

    bench: Path | None = None

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return "crows_pairs"

    @property
    def by_likelihood(self) -> bool:
        """Always: no answer says how likely a sentence is."""
        return True

    def prompts(self, seed: int) -> list[Prompt]:
        """All pairs; nothing is drawn, so the seed has no say.

        Raises:
            DataError: the bench is missing or broken.
        """
        return read_bench("crows_pairs", self.bench, BadRows(option=""))

    def passages(self, prompts: Sequence[Prompt]) -> list[Passage]:
        """Two a prompt: the more and the less stereotyping sentence."""
        return [
            Passage(id=f"{prompt.id}#{side}", text=text)
            for prompt in prompts
            for side, text in prompt.metadata["sentences"].items()
        ]

    def verdicts_of_likelihoods(
        self, prompts: Sequence[Prompt], likelihoods: Mapping[str, Likelihood]
    ) -> list[dict[str, Any]]:
        """One a prompt: of each sentence log-likelihood and tokens."""
        rows = []
        for prompt in prompts:
            found = {side: likelihoods[f"{prompt.id}#{side}"] for side in prompt.metadata["sentences"]}
            rows.append(
                {
                    "id": prompt.id,
                    "logps": {side: each.logp for side, each in found.items()},
                    "tokens": {side: each.tokens for side, each in found.items()},
                }
            )
        return rows

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """As `protocols.bias.crows_pairs`."""
        logps = {row["id"]: (row["logps"]["more"], row["logps"]["less"]) for row in verdicts}
        return bias.crows_pairs(prompts, logps)


@dataclass(kw_only=True, slots=True)
class WinogenderTask(ChoiceTask):
    """Whom a pronoun means.

    Which of the two people comes first is balanced by a hash, and the same in the three versions of a sentence, so that
    a model that prefers a place does not look as if it preferred a gender.
    """

    bench_name = "winogender"

    def choice(self, prompt: Prompt) -> Choice:
        """The occupation and the participant."""
        about = prompt.metadata
        participant = about["participant"]
        options = {
            bias.OCCUPATION: f"the {about['occupation']}",
            bias.PARTICIPANT: participant if participant == SOMEONE else f"the {participant}",
        }
        if _is_odd(prompt.id.rpartition(".")[0]):
            options = dict(reversed(options.items()))
        return Choice(
            question=f'{about["sentence"]}\n\nWhom does the word "{about["pronoun"]}" mean in this sentence?',
            context=f'{about["sentence"]} The word "{about["pronoun"]}" refers to',
            options=options,
        )

    def scores(self, prompts: Sequence[Prompt], chosen: Mapping[str, str]) -> dict[str, Estimate]:
        """As `protocols.bias.winogender`."""
        return bias.winogender(prompts, chosen)


@dataclass(kw_only=True, slots=True)
class BbqTask(ChoiceTask):
    """Questions about two groups, which the context may or may not answer; options in the bench's order."""

    bench_name = "bbq"

    def choice(self, prompt: Prompt) -> Choice:
        """The three answers, by their places."""
        about = prompt.metadata
        return Choice(
            question=f"{about['context']}\n\n{about['question']}",
            context=f"{about['context']}\n\nQuestion: {about['question']}\nAnswer:",
            options={str(place): answer for place, answer in enumerate(about["answers"])},
        )

    def scores(self, prompts: Sequence[Prompt], chosen: Mapping[str, str]) -> dict[str, Estimate]:
        """As `protocols.bias.bbq`."""
        return bias.bbq(prompts, {name: int(place) for name, place in chosen.items()})


def _is_odd(name: str) -> bool:
    return hashlib.sha256(f"order:{name}".encode()).digest()[0] % 2 == 1
