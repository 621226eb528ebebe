"""The ledger keeps count, whoever shares it and however a process ends."""

import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.inference.entries import Claim, Entry, Kept, Totals
from multifaceted.inference.ledger import Ledger
from multifaceted.inference.requests import EngineError

FREE = {"max_requests": None, "max_spend": None}


def entry(name, model="m"):
    return Entry.of(model, {"body": {"model": model}, "name": name})


def test_what_was_settled_is_there_for_the_next_to_open_it(tmp_path):
    with Ledger(tmp_path / "deep" / "l.sqlite") as ledger:
        assert ledger.kept(entry("a")) is None
        assert ledger.claim(entry("a"), 0.5, **FREE) is Claim.GRANTED
        ledger.settle(entry("a"), '{"text": "A"}', 0.25)
    with Ledger(tmp_path / "deep" / "l.sqlite") as ledger:
        assert ledger.kept(entry("a")) == '{"text": "A"}'
        assert ledger.claim(entry("a"), 0.5, **FREE) == Kept(reply='{"text": "A"}')
        assert ledger.totals("m") == Totals(sends=1, replies=1, spent=0.25) and ledger.totals("other") == Totals()
    assert [path.name for path in (tmp_path / "deep").rglob("*") if path.is_file()] == ["l.sqlite"]


def test_the_key_is_of_the_whole_request_and_of_nothing_else():
    first = Entry.of("m", {"a": 1, "b": {"c": [1, 2]}})
    assert first.key == Entry.of("m", {"b": {"c": [1, 2]}, "a": 1}).key
    others = [{"a": 2, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [2, 1]}}, {"a": 1}, {"a": "1", "b": {"c": [1, 2]}}]
    assert len({first.key, *(Entry.of("m", other).key for other in others)}) == 5


STEPS = st.lists(st.tuples(st.sampled_from(["settle", "refuse", "lose", "claim"]), st.integers(0, 3)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, caps=st.tuples(st.none() | st.integers(0, 8), st.none() | st.sampled_from([0.0, 1.0, 2.5])))
def test_totals_are_the_sums_of_the_rows_and_within_the_caps(tmp_path_factory, steps, caps):
    max_requests, max_spend = caps
    with Ledger(tmp_path_factory.mktemp("ledger") / "l.sqlite") as ledger:
        claimed = set()
        for step, name in steps:
            each = entry(name)
            if step == "claim":
                if ledger.claim(each, 0.5, max_requests=max_requests, max_spend=max_spend) is Claim.GRANTED:
                    assert name not in claimed
                    claimed.add(name)
            elif name in claimed:
                claimed.discard(name)
                ledger.settle(each, "{}", 0.125) if step == "settle" else getattr(ledger, step)(each)
            totals = ledger.totals("m")
            rows = ledger._database.execute(
                "SELECT sends, refused, lost, reply IS NOT NULL, reserved, coalesce(cost, 0) + lost * 0.5 FROM requests"
            ).fetchall()
            sums = [sum(column) for column in zip(*rows, strict=True)] or [0] * 6
            found = (totals.sends, totals.refused, totals.lost, totals.replies, totals.reserved, totals.spent)
            assert found == tuple(sums), "0.5 and 0.125 add up without rounding"
            assert totals.sends == totals.refused + totals.lost + totals.replies + len(claimed)
            assert max_requests is None or totals.sends <= max_requests
            assert max_spend is None or totals.spent + totals.reserved <= max_spend


def test_reserved_money_is_waited_for_and_spent_money_is_not(tmp_path):
    caps = {"max_requests": None, "max_spend": 1.0}
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.claim(entry("a"), 0.75, **caps) is Claim.GRANTED
        assert ledger.claim(entry("b"), 0.75, **caps) is Claim.WAIT
        ledger.settle(entry("a"), "{}", 0.25)
        assert ledger.claim(entry("b"), 0.75, **caps) is Claim.GRANTED
        ledger.lose(entry("b"))
        assert ledger.claim(entry("c"), 0.25, **caps) is Claim.TOO_DEAR
        assert ledger.claim(entry("c", model="another"), 0.25, **caps) is Claim.GRANTED
        assert ledger.claim(entry("d"), 0.0, max_requests=2, max_spend=None) is Claim.TOO_MANY


ASKER = """
import sys, time
from pathlib import Path
from multifaceted.inference.entries import Entry
from multifaceted.inference.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print(ledger.claim(Entry.of("m", {"body": {"model": "m"}, "name": "a"}), 0.5, max_requests=None, max_spend=None))
sys.stdout.flush()
time.sleep(60)
"""


def test_who_lives_is_waited_for_and_who_was_killed_is_not(tmp_path):
    path = tmp_path / "l.sqlite"
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert asker.stdout.readline() == "Claim.GRANTED\n"
        with Ledger(path) as ledger:
            assert ledger.claim(entry("a"), 0.5, **FREE) is Claim.BUSY
            assert ledger.lose_what_the_dead_asked() == 0
            asker.kill()
            asker.wait()
            assert ledger.lose_what_the_dead_asked() == 1
            assert ledger.totals("m") == Totals(sends=1, lost=1, spent=0.5), "it may have been paid for"
            assert ledger.claim(entry("a"), 0.5, **FREE) is Claim.GRANTED
    finally:
        asker.kill()


def test_two_in_one_process_do_not_take_each_other_for_dead(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as one, Ledger(tmp_path / "l.sqlite") as other:
        one.claim(entry("a"), 0.5, **FREE)
        other.claim(entry("b"), 0.5, **FREE)
        assert other.lose_what_the_dead_asked() == 0 and one.claim(entry("b"), 0.5, **FREE) is Claim.BUSY
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.totals("m").lost == 2, "closing gives up what was asked"


def test_what_is_no_ledger_of_this_version_is_refused(tmp_path):
    path = tmp_path / "l.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=9")
    with pytest.raises(EngineError, match=r"ledger of version 9; this release reads version 1.*name another file"):
        Ledger(path)
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE t (x)")
    with pytest.raises(EngineError, match="a database of something else; name another file"):
        Ledger(tmp_path / "other.sqlite")
    (tmp_path / "text").write_text("not a database, but a text that is long enough to be looked at. " * 9)
    with pytest.raises(EngineError, match=r"cannot be the ledger of requests .*name another file"):
        Ledger(tmp_path / "text")
    with pytest.raises(EngineError, match="cannot be the ledger"):
        Ledger(tmp_path)
