"""What check_examples refuses, and what the mini source offers."""

from dataclasses import replace

import pytest

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.source import MiniCollection, check_examples
from multifaceted.records import Turn

GOOD = MiniCollection(num_examples=2, num_validation=1).train(0, BadRows())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "  "}, "chosen is empty"),
        ({"rejected": [""]}, "rejected is empty"),
        ({"chosen": 3}, "chosen is 3, a int; expected a string"),
        ({"rejected": [None]}, "rejected is None, a NoneType"),
        ({"system": 1.5}, "system is 1.5"),
        ({"rejected": [GOOD[0].chosen]}, "chosen and rejected are the same text"),
        ({"rejected": []}, "no rejected response"),
        ({"turns": []}, "the last turn must be the user's"),
        ({"turns": [Turn(role="assistant", content="Hello.")]}, "the last turn must be the user's"),
        ({"turns": [Turn(role="user", content="")]}, "turns is empty"),
        ({"id": GOOD[1].id}, "occurs twice"),
    ],
)
def test_bad_examples_are_refused_by_id(change, message):
    bad = replace(GOOD[0], **change)
    with pytest.raises(DataError) as refusal:
        list(check_examples([bad, GOOD[1]], BadRows(), needs_rejected=True))
    assert message in str(refusal.value) and GOOD[1].id.split("-")[0] in str(refusal.value)


def test_good_examples_pass():
    list(check_examples(GOOD, BadRows(), needs_rejected=True))
    list(check_examples([replace(GOOD[0], rejected=[])], BadRows(), needs_rejected=False))
    with pytest.raises(DataError, match="no examples"):
        list(check_examples([], BadRows(), needs_rejected=False))


def test_several_rejected_responses():
    examples = MiniCollection(num_examples=3, num_rejected=2).train(0, BadRows())
    assert all(len(set(example.rejected)) == 2 for example in examples)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="num_examples is 0"):
        MiniCollection(num_examples=0)
