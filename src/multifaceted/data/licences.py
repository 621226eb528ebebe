"""What the licences of collections allow: data that a run warns by and that its card repeats. No legal advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Use(StrEnum):
    """What the trained model is for."""

    RESEARCH = "research"
    COMMERCIAL = "commercial"


@dataclass(kw_only=True, slots=True)
class Licence:
    """What may be done with a collection.

    Attributes:
        commercial: whether commercial use is allowed; None where the licence does not say.
        training: whether training a model is; None where the licence does not say.
        text: a sentence for people.
    """

    name: str
    commercial: bool | None = None
    training: bool | None = None
    text: str = ""


class Collection(StrEnum):
    """Collections whose licences are known here."""

    MULTIFACETED = "multifaceted"
    HH_RLHF = "hh_rlhf"
    OASST1 = "oasst1"
    WEBGPT = "webgpt"
    HELPSTEER = "helpsteer"
    ULTRAFEEDBACK = "ultrafeedback"
    DSP = "dsp"


KNOWN = {
    Collection.MULTIFACETED: Licence(
        name="CC BY 4.0",
        commercial=True,
        training=True,
        text="Give credit to the authors. Its texts were written by an OpenAI model, whose terms restrict training"
        " models that compete with OpenAI's, and its instructions come from sets with terms of their own.",
    ),
    Collection.HH_RLHF: Licence(
        name="MIT",
        commercial=True,
        training=True,
        text="Keep the copyright notice. Its authors ask not to train dialogue agents on it by supervised learning: it"
        " is meant for preference and reward models.",
    ),
    Collection.OASST1: Licence(
        name="Apache-2.0", commercial=True, training=True, text="Keep the copyright and licence notices."
    ),
    Collection.WEBGPT: Licence(name="not stated", text="The data set's card states no licence; ask OpenAI."),
    Collection.HELPSTEER: Licence(
        name="CC BY 4.0", commercial=True, training=True, text="Give credit to NVIDIA and say what you changed."
    ),
    Collection.ULTRAFEEDBACK: Licence(
        name="MIT",
        commercial=True,
        training=True,
        text="Keep the copyright notice. Several of the models that wrote its answers, and the one that scored them,"
        " have terms of their own.",
    ),
    Collection.DSP: Licence(
        name="CC BY-NC 4.0",
        commercial=False,
        training=True,
        text="Give credit to the authors; no commercial use. Its answers were written by an OpenAI model.",
    ),
}


@dataclass(kw_only=True, slots=True)
class Terms:
    """Under which licence a source has its files.

    Attributes:
        where: the key of the source in the config.
        files: the files as the config names them.
        licence: None where nobody said.
    """

    where: str
    files: str
    licence: Licence | None


def licence_of(stated: Collection | Licence | None) -> Licence | None:
    """The licence that a config names or spells out."""
    return KNOWN[stated] if isinstance(stated, Collection) else stated


def objections(terms: Sequence[Terms], use: Use) -> list[str]:
    """What a user must know who trains on these files for a use: a sentence for each source that may not allow it.

    Nothing is said of files whose licence nobody stated where the use is research.
    """
    return [said for part in terms if (said := _objection(part, use))]


def _objection(terms: Terms, use: Use) -> str | None:
    licence = terms.licence
    if licence is None:
        if use is Use.RESEARCH:
            return None
        return (
            f"{terms.files}: no licence is stated, and data.use={use}. Make sure that you may, and say so for the card:"
            f' {terms.where}.licence={{name: "...", commercial: true, training: true}}'
        )
    if licence.training is False:
        return f"{terms.files}: the licence ({licence.name}) forbids training. {licence.text}".rstrip()
    if use is Use.RESEARCH or licence.commercial:
        return None
    verb = "forbids" if licence.commercial is False else "does not say that it allows"
    return f"{terms.files}: the licence ({licence.name}) {verb} commercial use. {licence.text}".rstrip()


def card_section(terms: Sequence[Terms], use: Use) -> str:
    """The part of a model card that says what it was trained on under which terms, in Markdown; empty where unknown."""
    known = [part for part in terms if part.licence is not None]
    if not known:
        return ""
    lines = [f"- {t.files}: licence {t.licence.name}. {t.licence.text}".rstrip() for t in known if t.licence]
    warned = [f"\nWarning: {sentence}" for sentence in objections(known, use)]
    return "\n".join(["\n## Training data\n", f"Trained for {use} use, on:\n", *lines, *warned, ""])
