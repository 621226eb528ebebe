"""The English of the mini world, read from `content/` once a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from multifaceted.mini.holdout import Part, part_of
from multifaceted.preferences import Taxonomy, load_yaml, parse_taxonomy

CONTENT = Path(__file__).parent / "content"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrases:
    """How users word one preference: seen in training, recombined from seen words, of unseen words."""

    seen: tuple[str, ...]
    recombined: tuple[str, ...]
    disjoint: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Messages:
    """Parts of a system message; see `content/messages.yaml`."""

    roles: tuple[str, ...]
    frames: dict[str, tuple[str, ...]]
    """"seen", "recombined" or "disjoint" to sentence frames."""
    phrases: dict[str, Phrases]
    """Preference name to its phrases."""
    uniform: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of instruction: how it is asked, and sentences that answer it."""

    name: str
    asks: tuple[str, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Topics:
    """Two-word topics by part."""

    settings: tuple[str, ...]
    activities: tuple[str, ...]
    by_part: dict[Part, tuple[str, ...]]


@cache
def taxonomy() -> Taxonomy:
    """The four dimensions of the paper with this world's preferences."""
    return parse_taxonomy(load_yaml(CONTENT / "taxonomy.yaml"))


@cache
def messages() -> Messages:
    """Roles, frames and phrases of system messages."""
    data = load_yaml(CONTENT / "messages.yaml")
    tree = load_yaml(CONTENT / "taxonomy.yaml")
    roles = data["roles"]
    return Messages(
        roles=tuple(
            sentence.format(character=character, profession=profession)
            for sentence in roles["sentences"]
            for character in roles["characters"]
            for profession in roles["professions"]
        ),
        frames={
            "seen": tuple(data["frames"]),
            "recombined": tuple(data["recombined_frames"]),
            "disjoint": tuple(data["disjoint_frames"]),
        },
        phrases={
            name: Phrases(
                seen=tuple(leaf["phrases"]), recombined=tuple(leaf["recombined"]), disjoint=tuple(leaf["disjoint"])
            )
            for subdimensions in tree.values()
            for leaves in subdimensions.values()
            for name, leaf in leaves.items()
        },
        uniform=data["uniform"],
    )


@cache
def kinds() -> tuple[Kind, ...]:
    """The kinds of instruction."""
    data = load_yaml(CONTENT / "instructions.yaml")
    return tuple(
        Kind(name=name, asks=tuple(entry["asks"]), sentences=tuple(entry["sentences"])) for name, entry in data.items()
    )


@cache
def topics() -> Topics:
    """Every pair of a setting and an activity, by part."""
    data = load_yaml(CONTENT / "topics.yaml")
    names = [f"{setting} {activity}" for setting in data["settings"] for activity in data["activities"]]
    return Topics(
        settings=tuple(data["settings"]),
        activities=tuple(data["activities"]),
        by_part={part: tuple(name for name in names if part_of("topic", name) is part) for part in Part},
    )
