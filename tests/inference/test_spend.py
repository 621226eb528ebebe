"""Caps on requests and spend hold to the last reply, and what is about to be paid is said before."""

import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.inference.requests import EngineError
from multifaceted.inference.spend import Price, guessed_tokens, most_tokens
from tests.inference.asking import engine, requests, totals
from tests.inference.server import MockServer


@settings(max_examples=12, deadline=None)
@given(number=st.integers(1, 12), cap=st.integers(0, 14), in_flight=st.integers(1, 6))
def test_no_more_than_the_cap_is_sent_and_a_higher_one_goes_on(tmp_path_factory, number, cap, in_flight):
    folder, asked = tmp_path_factory.mktemp("cap"), requests(number)
    with MockServer(faults=0.2, kinds=("error",)) as server:
        replies = []
        try:
            for reply in engine(server, folder, max_requests=cap, in_flight=in_flight).answer(asked, seed=0):
                replies.append(reply)
        except EngineError as error:
            assert f"max_requests={cap} is reached; raise it" in str(error)
            assert f"{len(replies)} of {number} requests are answered" in str(error)
            assert server.asked.total() == cap
        assert server.asked.total() <= cap
        assert len(list(engine(server, folder, max_requests=100).answer(asked, seed=0))) == number
        assert server.paid.total() == number


def test_spend_stays_under_its_cap_and_uses_what_is_reserved_in_vain(tmp_path):
    price = Price(input=1000.0, output=100_000.0)  # 6 and 5 tokens a request, so 0.506; at most about 1.1
    costs = {"price": price, "max_tokens": 10, "max_spend": 5.0, "in_flight": 8}
    with MockServer(delay=0.02) as server:
        replies = []
        with pytest.raises(EngineError, match=r"max_spend=5\.0 .*raise it") as caught:
            for reply in engine(server, tmp_path, **costs).answer(requests(50), seed=0):
                replies.append(reply)
        spent = server.paid.total() * 0.506
        assert 5.0 - 1.2 < spent <= 5.0, "the next reply might have been too dear, and only then it stopped"
        assert totals(tmp_path).spent == pytest.approx(spent) and totals(tmp_path).reserved == pytest.approx(0)
        assert f"{len(replies)} of 50 requests are answered" in str(caught.value)
        more = list(engine(server, tmp_path, **costs | {"max_spend": 100.0}).answer(requests(50), seed=0))
        assert len(more) == 50 and server.paid.total() == 50


def test_a_server_that_counts_no_tokens_is_taken_at_its_dearest(tmp_path):
    with MockServer(has_usage=False) as server:
        asking = engine(server, tmp_path, price=Price(output=1.0), max_tokens=10**6)
        (reply,) = asking.answer(requests(1), seed=0)
    assert reply.prompt_tokens is None and totals(tmp_path).spent == 1.0


def test_the_projection_says_what_is_about_to_be_paid(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="multifaceted")
    with MockServer() as server:
        asking = engine(server, tmp_path, price=Price(input=1000.0, output=1000.0), max_tokens=10, max_spend=0.5)
        list(replace(asking, max_spend=None).answer(requests(2), seed=0))
        with pytest.raises(EngineError):
            list(asking.answer(requests(40), seed=0))
    assert (
        "38 requests to ask and 2 kept: about 646 tokens of prompts (characters / 4) and at most 380 of" in caplog.text
    )
    assert "max_spend=0.50 is spent, and this costs at most 1.03" in caplog.text


@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_bounds_on_tokens_are_bounds(texts):
    """No tokenizer of bytes makes more tokens than there are bytes."""
    messages = [{"role": "user", "content": text} for text in texts]
    size = sum(len(text.encode()) for text in texts)
    assert size + 16 * len(texts) < most_tokens(messages) and guessed_tokens(messages) <= most_tokens(messages)


@pytest.mark.parametrize("bad", [{"input": -1.0}, {"output": -0.1}])
def test_a_price_below_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="must be at least 0"):
        Price(**bad)
