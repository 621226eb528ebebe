"""OpenAssistant Conversations: trees of messages, where people ranked the replies to a prompt."""

from __future__ import annotations

import math
import reprlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from multifaceted.data.bad_rows import BadRowError, BadRows, LeftOutError
from multifaceted.data.collections.answers import Answer, Comparison, Pairs, compare, example_from, why_alone
from multifaceted.data.collections.columns import columns_of, number_of, refuse_columns, text_of
from multifaceted.data.licences import Collection, Licence
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.source import check_example, check_text
from multifaceted.data.text_files import Row
from multifaceted.records import Example, Turn

ROLES = {"prompter": "user", "assistant": "assistant"}
READY = "ready_for_export"


@dataclass(kw_only=True, slots=True)
class Message:
    """A message of a tree."""

    name: str
    parent: str | None
    turn: Turn
    rank: float | None
    row: Row | None = None
    """Where a message is a row of its own, that row."""


@dataclass(kw_only=True, slots=True)
class Compared:
    """What the messages of a tree teach."""

    pairs: list[tuple[Comparison, list[Turn]]] = field(default_factory=list)
    """Each with its prompt."""
    unused: dict[str, LeftOutError] = field(default_factory=dict)
    """Messages that are in none of them, by name, and why."""


@dataclass(kw_only=True, slots=True)
class Oasst(PreferenceFiles):
    """Trees of messages (Köpf et al. 2023, arXiv 2304.07327), one a row, or flat, one message a row.

    A tree is `message_tree_id`, `tree_state` and a `prompt` with nested `replies`. Flat rows have `message_id`,
    `parent_id`, `message_tree_id`, `text`, `role` and `rank`; rows of a tree follow one another.
    Replies of the assistant to one prompt are compared by rank, 0 the best. Messages that were deleted, rejected by
    review or are of another language are left out with all that follows them.

    Attributes:
        pairs: which replies to a prompt are set beside each other.
        languages: codes such as "en"; null for all.
    """

    pairs: Pairs = Pairs.EVERY
    languages: list[str] | None = None
    licence: Collection | Licence | None = Collection.OASST1

    def __post_init__(self) -> None:
        PreferenceFiles.__post_init__(self)
        refuse_columns(self)
        if self.languages == []:
            raise ValueError("languages is empty; name some, or null for all")

    @property
    def joins_rows(self) -> bool:
        """A pair takes two rows or more."""
        return True

    def convert(self, rows: Iterable[Row], label: str, bad: BadRows) -> Iterator[tuple[Row, Example]]:
        """The pairs of each tree; holds the messages of one tree."""
        for tree, group in groupby(rows, key=_tree_of):
            if tree is not None:
                yield from self._flat(group, label, bad)
                continue
            for row in group:
                with bad.row(row.where):
                    for example in self._nested(row, label):
                        yield row, example

    def _nested(self, row: Row, label: str) -> list[Example]:
        """The pairs of a tree that is one row."""
        _, state, root = columns_of(row.value, "message_tree_id", "tree_state", "prompt")
        _refuse_unready(state)
        messages = []
        waiting: deque[tuple[Any, str | None]] = deque([(root, None)])
        while waiting:
            value, parent = waiting.popleft()
            try:
                message = self._message(value, parent)
            except LeftOutError:
                continue
            messages.append(message)
            replies = value.get("replies") or []
            if not isinstance(replies, list):
                raise BadRowError("wrong_type", f"replies is a {type(replies).__name__}; expected a list")
            waiting += [(reply, message.name) for reply in replies]
        if len({message.name for message in messages}) < len(messages):
            raise BadRowError("duplicate_id", "two messages of the tree have one message_id")
        compared = _compare(messages, self.pairs)
        if not compared.pairs:
            raise LeftOutError("no_sibling", "the tree has no two ranked replies to compare")
        prefix = f"{label}:{row.number}"
        examples = [
            example_from(pair, turns, prefix=prefix, source=label, has_margin=False) for pair, turns in compared.pairs
        ]
        for example in examples:
            check_example(example)
        return examples

    def _flat(self, rows: Iterable[Row], label: str, bad: BadRows) -> Iterator[tuple[Row, Example]]:
        """The pairs of a tree whose messages are rows; each row is in one of them or counted."""
        messages: dict[str, Message] = {}
        for row in rows:
            with bad.row(row.where):
                columns_of(row.value, "message_id", "message_tree_id")
                message = self._message(row.value, row.value.get("parent_id"), row)
                _refuse_unready(row.value.get("tree_state", READY))
                if message.name in messages:
                    raise BadRowError("duplicate_id", f"message_id {message.name!r} occurs twice in its tree")
                messages[message.name] = message
        rooted = _rooted(messages, bad)
        compared = _compare(rooted, self.pairs)
        row_of = {message.name: message.row for message in rooted if message.row}
        for name, reason in compared.unused.items():
            with bad.row(row_of[name].where):
                raise reason
        for pair, turns in compared.pairs:
            named = Comparison(
                pair.chosen._replace(name=str(row_of[pair.chosen.name].number)),
                [answer._replace(name=str(row_of[answer.name].number)) for answer in pair.rejected],
            )
            example = example_from(named, turns, prefix=label, source=label, has_margin=False)
            with bad.row(row_of[pair.chosen.name].where):
                check_example(example)
                yield row_of[pair.chosen.name], example

    def _message(self, value: Any, parent: str | None, row: Row | None = None) -> Message:
        """A message of either layout.

        Raises:
            LeftOutError: it was deleted, rejected by review, or is of another language.
            BadRowError: it is no message.
        """
        (name,) = columns_of(value, "message_id")
        for key, cell in (("message_id", name), ("parent_id", "" if parent is None else parent)):
            check_text(key, cell)
        if value.get("deleted"):
            raise LeftOutError("deleted", "the message was deleted")
        if value.get("review_result") is False:
            raise LeftOutError("failed_review", "reviewers rejected the message")
        if self.languages is not None and value.get("lang") not in self.languages:
            raise LeftOutError("other_language", f"lang is {reprlib.repr(value.get('lang'))}")
        text, role = columns_of(value, "text", "role")
        if not isinstance(role, str) or role not in ROLES:
            raise BadRowError("unknown_role", f"the role is {reprlib.repr(role)}; expected one of {', '.join(ROLES)}")
        rank = value.get("rank")
        is_ranked = rank is not None and not (isinstance(rank, float) and math.isnan(rank))
        return Message(
            name=name,
            parent=parent,
            turn=Turn(role=ROLES[role], content=text_of("text", text)),
            rank=number_of("rank", rank) if is_ranked else None,
            row=row,
        )


def _refuse_unready(state: object) -> None:
    if state not in (READY, None):
        raise LeftOutError("tree_not_ready", f"tree_state is {reprlib.repr(state)}; expected {READY}")


def _tree_of(row: Row) -> object:
    """What flat rows of one tree have in common; None for a row that is a tree, or that is neither."""
    if isinstance(row.value, Mapping) and "message_id" in row.value:
        return ("tree", row.value.get("message_tree_id"))
    return None


def _rooted(messages: Mapping[str, Message], bad: BadRows) -> list[Message]:
    """The messages whose ancestors are all there and take turns; the others are counted."""
    verdicts: dict[str, bool] = {}
    for name in messages:
        chain: dict[str, None] = {}
        at: str | None = name
        while at is not None and at in messages and at not in verdicts and at not in chain:
            chain[at] = None
            at = messages[at].parent
        is_sound = at is None or verdicts.get(at, False)
        for member in reversed(chain):
            parent = messages[member].parent
            before = messages[parent].turn.role if parent is not None and parent in messages else "assistant"
            is_sound = is_sound and before != messages[member].turn.role
            verdicts[member] = is_sound
    for name, is_sound in verdicts.items():
        row = messages[name].row
        if not is_sound and row is not None:
            with bad.row(row.where):
                raise LeftOutError("no_parent", "what it replies to is missing, left out or of the same role")
    return [message for name, message in messages.items() if verdicts[name]]


def _compare(messages: Sequence[Message], pairs: Pairs) -> Compared:
    """Compare the ranked replies to each prompt. Parents come before their replies, or are found by name."""
    by_name = {message.name: message for message in messages}
    replies: dict[str | None, list[Message]] = {}
    for message in messages:
        replies.setdefault(message.parent, []).append(message)
    compared, used = Compared(), set()
    for parent, siblings in replies.items():
        answers = [
            Answer(message.name, message.turn.content, -message.rank)
            for message in siblings
            if message.rank is not None and message.turn.role == "assistant"
        ]
        found = compare(answers, pairs)
        path = _path(parent, by_name) if found else []
        compared.pairs += [(pair, [message.turn for message in path]) for pair in found]
        used |= {message.name for message in path}
        used |= {answer.name for pair in found for answer in (pair.chosen, *pair.rejected)}
        compared.unused |= {answer.name: why_alone(answer, answers) for answer in answers if answer.name not in used}
    no_use = LeftOutError("not_ranked", "it is no ranked reply, and no prompt of ranked replies that differ")
    compared.unused = {
        message.name: compared.unused.get(message.name, no_use) for message in messages if message.name not in used
    }
    return compared


def _path(name: str | None, by_name: Mapping[str, Message]) -> list[Message]:
    path: list[Message] = []
    while name is not None:
        path.append(by_name[name])
        name = by_name[name].parent
    return path[::-1]
