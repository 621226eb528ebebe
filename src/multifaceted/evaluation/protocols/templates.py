"""What a judge is told: in a benchmark's own words, read from the files in which it publishes them, or in ours.

Verdicts are comparable with published ones under a benchmark's own template. There a text under judgement stands as it
is, and the judge's reply is read as the benchmark reads it, so a response may dictate its verdict. Under ours every
text stands in a fence (`material`), and the verdict is read from the end of what the judge wrote (`verdict_end`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from multifaceted.data.bad_rows import DataError
from multifaceted.evaluation.judge import at_the_end
from multifaceted.evaluation.material import judge_messages
from multifaceted.evaluation.protocols.recorded import read_recorded
from multifaceted.evaluation.verdict_end import read_end
from multifaceted.inference.requests import Reply

PLACE = re.compile(r"\{(\w+)\}")
CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)\n?<\|im_end\|>", re.DOTALL)

T = TypeVar("T", bound=float | str)


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A published one: a system message and a user message in which `{name}` is a place for a text.

    Other braces are braces.
    """

    name: str
    system: str | None
    user: str

    def checked(self, places: Collection[str]) -> Template:
        """This template, if these are its places.

        Raises:
            DataError: it lacks one, which would hide something from the judge, or has another.
        """
        found = {*PLACE.findall(self.user)}
        if found != {*places}:
            has, needs = (", ".join(f"{{{name}}}" for name in sorted(names)) or "none" for names in (found, places))
            raise DataError(f"the template {self.name} has the places {has}; it needs {needs}")
        return self

    def messages(self, texts: Mapping[str, str]) -> list[dict[str, str]]:
        """The judge's messages. What is in a text stays as it is: a response cannot fill a place."""
        user = PLACE.sub(lambda place: texts[place[1]], self.user)
        stated = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*stated, {"role": "user", "content": user}]

    def reader(
        self, texts: Mapping[str, str], parse: Callable[[str], T | None], labels: Mapping[str, T]
    ) -> Callable[[Reply], T | None]:
        """What the benchmark's own `parse` makes of a reply, be it cut or not."""
        return lambda reply: parse(reply.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnTemplate:
    """One of ours: what the judge is to do, and the heading under which each text stands in its fence.

    Attributes:
        task: ends with the form of the verdict; `{tag}` becomes the tag of the fences.
        headings: of each place, in the order in which the texts are shown.
    """

    system: str
    task: str
    headings: Mapping[str, str]

    def messages(self, texts: Mapping[str, str]) -> list[dict[str, str]]:
        """The judge's messages."""
        sections = {heading: texts[place] for place, heading in self.headings.items()}
        return judge_messages(self.system, self.task, sections, "Your verdict")

    def reader(
        self, texts: Mapping[str, str], parse: Callable[[str], T | None], labels: Mapping[str, T]
    ) -> Callable[[Reply], T | None]:
        """Which of `labels` a whole reply ends with; one that quotes what was shown has no verdict."""
        return at_the_end(partial(read_end, labels=labels, material=[texts[place] for place in self.headings]))


def read_fastchat_templates(path: Path) -> dict[str, Template]:
    """By name, the templates of a file as FastChat's `judge_prompts.jsonl`: `name, system_prompt, prompt_template`.

    Raises:
        DataError: the file is missing or has a row that is no template.
    """
    templates = read_recorded(
        path,
        lambda cells: Template(
            name=cells.text("name"), system=cells.text("system_prompt"), user=cells.text("prompt_template")
        ),
    )
    return {template.name: template for template in templates}


def read_chatml_template(path: Path) -> Template:
    """A template as AlpacaEval spells them: a system and a user message between `<|im_start|>` and `<|im_end|>`.

    Raises:
        DataError: the file is missing or holds no user message.
    """
    parts = dict(CHATML.findall(_text(path)))
    if "user" not in parts:
        raise DataError(f"{path} has no message between <|im_start|>user and <|im_end|>; name AlpacaEval's prompt file")
    return Template(name=path.name, system=parts.get("system"), user=parts["user"])


def read_yaml_template(path: Path) -> Template:
    """A template as Arena-Hard's `judge_config.yaml` has it: `system_prompt` and a list `prompt_template`.

    Raises:
        DataError: the file is missing, no YAML, or lacks one of the two.
    """
    try:
        config = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {error}") from error
    match config:
        case {"system_prompt": str(system), "prompt_template": str(user) | [str(user)]}:
            return Template(name=path.name, system=system, user=user)
    raise DataError(f"{path} needs a text system_prompt and one prompt_template; name Arena-Hard's judge_config.yaml")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
