"""Whether a response satisfies a preference, decided from its text alone.

Nothing here knows how the collection's responses are written: a rule reads layout, punctuation, counts, order
and open word lists, so that it also judges what a model or a person writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_MARKER = re.compile(r"^(-|(\d+)\.) +")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")

_UNITS = (
    r"(?:percent|seconds?|minutes?|hours?|days?|weeks?|months?|sessions?|grams?|kilograms?|metres?|degrees|litres?)"
)
_FIGURE = re.compile(rf"\b\d+(?:\.\d+)?[ -]{_UNITS}\b", re.IGNORECASE)
_GLOSS = re.compile(r"\(([^()]+)\)")
_EXAMPLE = re.compile(r"\b(?:for (?:example|instance)|such as|to illustrate|as an (?:example|illustration))\b")
_REASON = re.compile(r"\b(?:because|since|so that|due to|thanks to|the reason)\b")
_TRADE_OFF = re.compile(r"\b(?:although|though|whereas|while|on the other hand|at the cost of|at the expense of)\b")

_GROUNDED = {"basics", "fundamentals", "refresher", "familiar", "already"}
_FIELDS = {
    "music": set("melody note notes song songs orchestra rhythm tune tunes violin chord chords choir piano".split()),
    "sea": set("ship ships steer steers boat boats harbour voyage wave waves sail sails anchor captain".split()),
    "building": set("wall walls brick bricks foundation mason scaffold beam beams hammer roof mortar".split()),
}
_CAUTION = set(
    "safe safety safely careful carefully caution cautious risk risks risky hazard hazards hazardous danger dangers"
    " dangerous injury injuries beware warning".split()
)
_PROFESSIONALS = set(
    "doctor doctors physician professional professionals specialist specialists instructor trainer therapist"
    " nurse coach consultant".split()
)
_SECOND_PERSON = {"you", "your", "yours", "yourself"}
_FIRST_PERSON_PLURAL = {"we", "our", "ours", "us", "ourselves"}
_FIRST_PERSON_SINGULAR = {"i", "my", "me", "mine", "myself"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A response taken apart once, for all rules."""

    text: str
    lower: str
    lines: tuple[str, ...]
    markers: tuple[str, ...]
    """Per line: "-" , a number, or "" for a line without a list marker."""
    sentences: tuple[str, ...]
    words: frozenset[str]


@lru_cache(maxsize=4096)
def parse(text: str) -> Parsed:
    """Split a response into lines, list markers, sentences and words."""
    lines = tuple(text.split("\n"))
    matches = [_MARKER.match(line) for line in lines]
    bodies = [line[match.end() :] if match else line for line, match in zip(lines, matches, strict=True)]
    sentences = tuple(s for body in bodies for s in _SENTENCE_END.split(body.strip()) if s)
    return Parsed(
        text=text,
        lower=text.lower(),
        lines=lines,
        markers=tuple((match.group(2) or "-") if match else "" for match in matches),
        sentences=sentences,
        words=frozenset(_WORD.findall(text.lower())),
    )


def _has_any(sentence: str, lexicon: set[str]) -> bool:
    return not lexicon.isdisjoint(_WORD.findall(sentence.lower()))


def _bullet_points(r: Parsed) -> bool:
    return len(r.lines) > 1 and all(marker == "-" for marker in r.markers)


def _numbered_steps(r: Parsed) -> bool:
    return len(r.lines) > 1 and r.markers == tuple(str(n + 1) for n in range(len(r.lines)))


def _single_paragraph(r: Parsed) -> bool:
    return len(r.lines) == 1 and r.markers == ("",)


def _enthusiastic(r: Parsed) -> bool:
    return r.text.count("!") > 1 and "?" not in r.text


def _inquisitive(r: Parsed) -> bool:
    return "?" in r.text and "!" not in r.text


def _measured(r: Parsed) -> bool:
    return "?" not in r.text and "!" not in r.text


def _novice(r: Parsed) -> bool:
    return any(len(gloss.split()) > 1 for gloss in _GLOSS.findall(r.text))


def _intermediate(r: Parsed) -> bool:
    return not r.words.isdisjoint(_GROUNDED)


def _expert(r: Parsed) -> bool:
    return _FIGURE.search(r.text) is not None


def _field(name: str) -> Callable[[Parsed], bool]:
    def rule(r: Parsed) -> bool:
        return {field for field, lexicon in _FIELDS.items() if not r.words.isdisjoint(lexicon)} == {name}

    return rule


def _brief(r: Parsed) -> bool:
    return len(r.sentences) <= 2


def _balanced(r: Parsed) -> bool:
    return len(r.sentences) == 3


def _thorough(r: Parsed) -> bool:
    return len(r.sentences) >= 4


def _examples(r: Parsed) -> bool:
    return _EXAMPLE.search(r.lower) is not None


def _reasons(r: Parsed) -> bool:
    return _REASON.search(r.lower) is not None


def _trade_offs(r: Parsed) -> bool:
    return _TRADE_OFF.search(r.lower) is not None


def _warning_first(r: Parsed) -> bool:
    return len(r.sentences) > 1 and [_has_any(r.sentences[i], _CAUTION) for i in (0, -1)] == [True, False]


def _warning_last(r: Parsed) -> bool:
    return len(r.sentences) > 1 and [_has_any(r.sentences[i], _CAUTION) for i in (0, -1)] == [False, True]


def _referral(r: Parsed) -> bool:
    return not r.words.isdisjoint(_PROFESSIONALS)


def _persons(r: Parsed) -> set[str]:
    groups = {"you": _SECOND_PERSON, "we": _FIRST_PERSON_PLURAL, "i": _FIRST_PERSON_SINGULAR}
    return {name for name, pronouns in groups.items() if not r.words.isdisjoint(pronouns)}


def _direct(r: Parsed) -> bool:
    return _persons(r) == {"you"}


def _inclusive(r: Parsed) -> bool:
    return _persons(r) == {"we"}


def _impersonal(r: Parsed) -> bool:
    return not _persons(r)


RULES: dict[str, Callable[[Parsed], bool]] = {
    "bullet_points": _bullet_points,
    "numbered_steps": _numbered_steps,
    "single_paragraph": _single_paragraph,
    "enthusiastic": _enthusiastic,
    "inquisitive": _inquisitive,
    "measured": _measured,
    "novice": _novice,
    "intermediate": _intermediate,
    "expert": _expert,
    "music": _field("music"),
    "sea": _field("sea"),
    "building": _field("building"),
    "brief": _brief,
    "balanced": _balanced,
    "thorough": _thorough,
    "examples": _examples,
    "reasons": _reasons,
    "trade_offs": _trade_offs,
    "warning_first": _warning_first,
    "warning_last": _warning_last,
    "referral": _referral,
    "direct": _direct,
    "inclusive": _inclusive,
    "impersonal": _impersonal,
}
"""Preference name to its rule. Lexical: intermediate, the three fields, the three supports and referral; the
other sixteen read structure (layout, punctuation, counts, order, address)."""


def satisfies(text: str, preference: str) -> bool:
    """Whether `text` satisfies the preference of that name; an empty text satisfies none.

    Raises:
        KeyError: the preference has no rule.
    """
    rule = RULES[preference]
    return bool(text.strip()) and rule(parse(text))


def on_topic(text: str, topic: str, topic_words: frozenset[str]) -> bool:
    """Whether `text` names `topic` ("winter gardening") and none of `topic_words` outside that name."""
    lower = text.lower()
    rest = re.sub(rf"\b{re.escape(topic.lower())}\b", " ", lower)
    return rest != lower and topic_words.isdisjoint(_WORD.findall(rest))


def well_formed(text: str) -> bool:
    """Whether `text` consists of whole sentences, laid out consistently, without repetition or a broken end."""
    r = parse(text)
    return bool(r.sentences) and _layout_is_consistent(r) and all(map(_is_whole, r.sentences)) and not _repeats(r)


def _layout_is_consistent(r: Parsed) -> bool:
    is_list = _bullet_points(r) or _numbered_steps(r)
    one_sentence_ends_each_line = all(line.endswith((".", "!", "?")) for line in r.lines)
    spaces = all(line == line.strip() and "  " not in line for line in r.lines)
    return (is_list or _single_paragraph(r)) and one_sentence_ends_each_line and spaces


def _is_whole(sentence: str) -> bool:
    balanced = re.sub(r"\([^()]*\)", "", sentence)
    return (
        sentence[0].isupper()
        and sentence[-1] in ".!?"
        and not set(sentence[:-1]) & set(".!?")
        and not set(balanced) & set("()[]<>")
        and len(_WORD.findall(sentence.lower())) >= 3
    )


def _repeats(r: Parsed) -> bool:
    tokens = [_WORD.findall(sentence.lower()) for sentence in r.sentences]
    if any(a == b for words in tokens for a, b in pairwise(words)):
        return True
    grams = [tuple(words[i : i + 5]) for words in tokens for i in range(len(words) - 4)]
    whole = [tuple(words) for words in tokens]
    return len(set(grams)) < len(grams) or len(set(whole)) < len(whole)
