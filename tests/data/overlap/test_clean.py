"""What of a collection stays."""

import pytest

from multifaceted.config import ConfigError, build
from multifaceted.data.overlap.clean import OnOverlap, Overlap
from multifaceted.data.overlap.contamination import Field
from tests.data.overlap.texts import edited, example, prompt, sentence

ASKED = sentence("asked")
BENCHES = {"one": [prompt("p", ASKED, sentence("system"))], "two": [prompt("p", ASKED)]}
ROWS = [
    example("leaked", ASKED),
    example("near the leaked one and not the bench", f"{ASKED} {sentence('more', 8)}"),
    example("plain", sentence("plain")),
    example("copy", sentence("plain").upper()),
    example("near copy", edited(sentence("plain"), {5})),
    example("leaked by its system message", sentence("other"), sentence("system")),
]


def test_contamination_comes_first_and_each_example_has_one_reason():
    kept, counts = Overlap(near=0.8, on_overlap=OnOverlap.DROP).clean(ROWS, BENCHES)
    assert counts == {"instruction_in_one": 2, "system_in_one": 1, "duplicate": 1, "near_duplicate": 1}
    assert kept == [2]


def test_a_near_duplicate_stays_where_its_twin_goes():
    rows = [example(str(ends), "Hi.", edited(sentence("system"), ends), str(ends)) for ends in ({0}, {0, 39})]
    drop = Overlap(near=0.92, on_overlap=OnOverlap.DROP)
    kept, counts = drop.clean(rows, BENCHES)
    assert (kept, counts) == ([1], {"system_in_one": 1})
    kept, counts = drop.clean(rows, {})
    assert (kept, counts) == ([0], {"near_duplicate": 1})


def test_a_report_leaves_everything():
    kept, counts = Overlap(near=0.8).clean(ROWS, BENCHES)
    assert kept == list(range(len(ROWS))) and sum(counts.values()) == 5


def test_exact_only_and_some_fields_only():
    exact = Overlap(near=None, by=[Field.SYSTEM], on_overlap=OnOverlap.DROP)
    assert exact.clean(ROWS, BENCHES) == ([0, 1, 2, 4], {"system_in_one": 1, "duplicate": 1})


@pytest.mark.parametrize("near", [0, -0.1, 1.01])
def test_a_threshold_that_means_nothing_is_refused(near):
    with pytest.raises(ValueError, match=f"near is {near}; it must be above 0"):
        Overlap(near=near)


def test_it_is_built_from_yaml():
    node = {"near": None, "by": ["system"], "on_overlap": "drop"}
    assert build(node, Overlap) == Overlap(near=None, by=[Field.SYSTEM], on_overlap=OnOverlap.DROP)
    with pytest.raises(ConfigError, match="colour"):
        build(node | {"by": ["colour"]}, Overlap)
