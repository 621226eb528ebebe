"""System messages: a role, then what the user values, as one paragraph."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from multifaceted.mini.holdout import Part, position
from multifaceted.mini.lexicon import messages

WORDINGS = ("seen", "recombined", "disjoint")


@cache
def wordings(preference: str, wording: str, part: Part = Part.TRAIN) -> tuple[tuple[str, str], ...]:
    """The (frame, phrase) pairs that may state a preference.

    Seen wordings are the same for every part. Held-out ones are divided between validation and test by hash, so
    that tuning never looks at a wording of the closing figures.

    Raises:
        ValueError: a held-out wording was asked for training.
    """
    if wording != "seen" and part is Part.TRAIN:
        raise ValueError(f"wording {wording!r} is held out from training")
    world = messages()
    phrases: tuple[str, ...] = getattr(world.phrases[preference], wording)
    pairs = [(frame, phrase) for frame in world.frames[wording] for phrase in phrases]
    if wording == "seen":
        return tuple(pairs)
    pairs.sort(key=lambda pair: position("wording", "|".join(pair)))
    boundary = len(pairs) // 3
    return tuple(pairs[:boundary] if part is Part.VALIDATION else pairs[boundary:])


def render_wording(frame: str, phrase: str, user: str) -> str:
    """One sentence that states a preference, about `user` ("The user" or "They")."""
    return frame.format(W=user, c=phrase)


def system_message(
    preferences: Sequence[str], rng: random.Random, *, wording: str = "seen", part: Part = Part.TRAIN
) -> str:
    """State `preferences` (names) in a random order under a random role."""
    order = list(preferences)
    rng.shuffle(order)
    sentences = [rng.choice(messages().roles)]
    user = "The user"
    for name in order:
        options = wordings(name, wording, part)
        # One draw for any preference: exchanging one leaves the wordings of the others as they are.
        frame, phrase = options[int(rng.random() * len(options))]
        sentences.append(render_wording(frame, phrase, user))
        if "{W}" in frame:
            user = "They"
    return " ".join(sentences)
