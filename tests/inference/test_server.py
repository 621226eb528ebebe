"""Asking a server: everything is answered once, within the caps, whatever goes wrong on the way."""

import asyncio
import json
import logging
import socket
import sqlite3
import threading
import time
import traceback
from dataclasses import replace

import pytest

from multifaceted.config import ConfigError, build
from multifaceted.evaluation.config import EvalConfig
from multifaceted.inference.faults import asked_to_wait, shown
from multifaceted.inference.requests import PAPER, EngineError, RefusedError, Request, request_seed
from multifaceted.inference.server import ServerEngine
from multifaceted.inference.spend import Price
from tests.conftest import composed
from tests.inference.asking import engine, requests, totals
from tests.inference.server import KINDS, MockServer

KEY = "sk-a-very-secret-key"


class Broken:
    """Fails at its first request by a bug, while it waits for the others."""

    secrets = ()

    async def send(self, body):
        await asyncio.sleep(0.02)
        if body["messages"][-1]["content"].startswith("Response 0"):
            raise RuntimeError("a bug")
        await asyncio.sleep(0.2)
        return json.dumps({"choices": [{"message": {"content": "So."}, "finish_reason": "stop"}]})

    async def aclose(self):
        pass


def test_a_bug_loses_no_reply_that_is_in_flight(tmp_path, monkeypatch):
    monkeypatch.setattr(ServerEngine, "_sender", lambda self: Broken)
    asked = ServerEngine(model="judge", ledger=tmp_path / "l.sqlite", in_flight=3)
    with pytest.raises(RuntimeError, match="a bug"):
        list(asked.answer(requests(9), seed=0))
    found = totals(tmp_path)
    assert (found.sends, found.replies, found.lost) == (3, 2, 1)


def test_a_request_is_sent_with_all_settings_and_its_reply_given(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with MockServer() as server:
        asking = engine(server, tmp_path, max_tokens=99, repetition_penalty=1.03, key_variable="JUDGE_KEY")
        (reply,) = asking.answer(requests(1), seed=3)
    (body,) = server.bodies
    (asked,) = requests(1)
    assert body == {
        "model": "judge",
        "messages": asked.messages,
        "temperature": 1.0,
        "top_p": 0.9,
        "max_tokens": 99,
        "seed": request_seed(3, asked) % 2**31,
        "repetition_penalty": 1.03,
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert reply.id == "r0" and reply.text.startswith("So it is. [RESULT] ") and reply.finished and not reply.was_kept
    assert (reply.prompt_tokens, reply.completion_tokens) == (6, 5)


def test_what_is_kept_is_never_asked_again(tmp_path):
    with MockServer() as server:
        first = {r.id: r for r in engine(server, tmp_path).answer(requests(30), seed=0)}
        again = {r.id: r for r in engine(server, tmp_path).answer(requests(40)[::-1], seed=0)}
        assert server.asked.total() == 40
        assert all(again[name] == replace(reply, was_kept=True) for name, reply in first.items())
        assert sum(not reply.was_kept for reply in again.values()) == 10
    offline = list(engine(server, tmp_path).answer(requests(40), seed=0))
    assert len(offline) == 40, "needs no server"


CHANGES = [
    {"model": "another"},
    {"temperature": 0.5},
    {"top_p": None},
    {"max_tokens": 7},
    {"extra": {"min_p": 0.1}},
    {"repetition_penalty": 1.1},
    {"omits": ["seed"]},
    {"top_logprobs": 5},
    {"system_in_user": True},
    {"revision": "step-100"},
]


@pytest.mark.parametrize("change", [*CHANGES, "seed", "sample", "id"], ids=str)
def test_another_request_is_asked(tmp_path, change):
    (asked,) = requests(1)
    other = {"sample": replace(asked, sample=1), "id": replace(asked, id="other")}
    with MockServer() as server:
        list(engine(server, tmp_path).answer([asked], seed=0))
        changed = engine(server, tmp_path, **(change if isinstance(change, dict) else {}))
        named = other.get(change, asked) if isinstance(change, str) else asked
        (reply,) = changed.answer([named], seed=int(change == "seed"))
        assert server.asked.total() == 2 and not reply.was_kept


@pytest.mark.parametrize("change", [{"in_flight": 3}, {"timeout": 9.0}, {"attempts": 2}, {"price": Price(input=1)}])
def test_how_it_is_asked_does_not_make_another_request(tmp_path, change):
    with MockServer() as server:
        list(engine(server, tmp_path).answer(requests(2), seed=0))
        assert all(reply.was_kept for reply in engine(server, tmp_path, **change).answer(requests(2), seed=0))


def test_so_many_are_in_flight_and_no_more(tmp_path):
    with MockServer(delay=0.1) as server:
        began = time.monotonic()
        assert len(list(engine(server, tmp_path, in_flight=16).answer(requests(64), seed=0))) == 64
        assert server.most_in_flight == 16 and time.monotonic() - began < 64 * 0.1 / 4


def test_faults_that_pass_are_tried_again_and_every_send_is_accounted_for(tmp_path):
    asked = requests(80)
    with MockServer(faults=0.4) as server:
        replies = list(engine(server, tmp_path, timeout=1.5, in_flight=32, attempts=12).answer(asked, seed=0))
        counts = server.counts()
    assert sorted(reply.id for reply in replies) == sorted(request.id for request in asked)
    assert all(counts["met"][kind] for kind in KINDS)
    assert sum(not reply.finished for reply in replies) == counts["met"]["cut"]
    assert sum(reply.text == "" and reply.finished for reply in replies) == counts["met"]["empty"]
    found = totals(tmp_path)
    assert (found.sends, found.replies) == (counts["asked"], 80)
    assert found.refused == counts["met"]["rate_limit"] + counts["met"]["error"]
    assert found.lost == counts["met"]["timeout"]


def test_a_server_is_given_the_time_it_asks_for(tmp_path):
    with MockServer(faults=1.0, kinds=("rate_limit",), retry_after=0.5) as server:
        began = time.monotonic()
        with pytest.raises(EngineError, match="request 'r0' failed 2 times: Error code: 429 - slow down"):
            list(engine(server, tmp_path, attempts=2).answer(requests(1), seed=0))
        assert server.asked.total() == 2 and 0.5 <= time.monotonic() - began < 5
    too_long = pytest.raises(EngineError, match="the server asks to wait 7,200 s: run again then")
    with MockServer(faults=1.0, kinds=("rate_limit",), retry_after=7200) as server, too_long:
        list(engine(server, tmp_path).answer(requests(1), seed=0))


def test_retry_after_is_seconds_or_a_date():
    assert asked_to_wait({"retry-after": "1.5"}) == 1.5
    assert asked_to_wait({}) == asked_to_wait({"retry-after": "soon"}) == asked_to_wait({"retry-after": "-3"}) == 0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 25 < asked_to_wait({"retry-after": later}) <= 30


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, None, r"http://\S+/v1 wants a key: .* key_variable"),
        (402, None, "no money left"),
        (403, None, "may not be used for this model"),
        (404, None, r"there is no such model, or base_url=http://\S+/v1 is not"),
        (429, "insufficient_quota", "the quota is exhausted"),
    ],
)
def test_what_concerns_every_request_ends_the_run(tmp_path, status, code, says):
    with MockServer(refusal=(status, code, "that cannot be")) as server:
        with pytest.raises(EngineError, match=says) as caught:
            list(engine(server, tmp_path, in_flight=4).answer(requests(50), seed=0))
        assert server.asked.total() <= 4 and server.asked.most_common(1)[0][1] == 1
    assert "that cannot be" in str(caught.value) and "0 of 50 requests are answered" in str(caught.value)
    assert totals(tmp_path).spent == 0


@pytest.mark.parametrize(
    ("status", "says"),
    [(400, "too long for the model's context"), (413, "too long"), (422, "know one of the settings")],
)
def test_a_request_that_is_refused_does_not_keep_the_others(tmp_path, status, says):
    refused = ("Response 3,", "Response 7,")
    with MockServer(
        refusal=(status, None, "that cannot be"),
        refuses=lambda asked: asked["messages"][-1]["content"].startswith(refused),
    ) as server:
        replies = []
        with pytest.raises(EngineError, match=says) as caught:
            for reply in engine(server, tmp_path, in_flight=2).answer(requests(20), seed=0):
                replies.append(reply)
        assert server.asked.total() == 20 and server.asked.most_common(1)[0][1] == 1
        assert {f"r{i}" for i in range(20)} - {reply.id for reply in replies} == {"r3", "r7"}
        assert isinstance(caught.value, RefusedError) and {*caught.value.refused} == {"r3", "r7"}
        message = str(caught.value)
        assert "2 have no answer, 'r3', 'r7'; the first: request 'r3' failed: " in message
        assert "that cannot be" in message and "18 of 20 requests are answered" in message
        server.refusal = None
        assert len(list(engine(server, tmp_path).answer(requests(20), seed=0))) == 20
        assert server.asked.total() == 22
    assert totals(tmp_path).refused == 2


def test_a_request_that_fails_while_others_are_answered_does_not_keep_them(tmp_path):
    with (
        MockServer(
            delay=0.01,
            refusal=(500, None, "out of order"),
            refuses=lambda asked: "Response 0," in asked["messages"][-1]["content"],
        ) as server,
        pytest.raises(EngineError, match="1 have no answer, 'r0'; the first: request 'r0' failed 3 times") as caught,
    ):
        list(engine(server, tmp_path, in_flight=2, attempts=3).answer(requests(30), seed=0))
    assert "29 of 30 requests are answered" in str(caught.value)


def test_a_server_that_answers_nobody_is_not_asked_by_all(tmp_path):
    with MockServer(refusal=(500, None, "out of order")) as server:
        with pytest.raises(EngineError, match="failed 3 times: Error code: 500 - out of order"):
            list(engine(server, tmp_path, in_flight=4, attempts=3).answer(requests(50), seed=0))
        assert server.asked.total() <= 4 * 3


def test_an_answer_that_cannot_be_read_is_asked_for_once_more(tmp_path):
    odd = lambda asked, answer: {"error": "upstream"} if "Response 0," in asked["messages"][-1]["content"] else answer  # noqa: E731
    with MockServer(alter=odd) as server:
        with pytest.raises(
            EngineError, match=r"'r0'; the first: request 'r0' failed 2 times: no chat completion: .*upstr"
        ):
            list(engine(server, tmp_path, price=Price(output=1.0)).answer(requests(10), seed=0))
        assert server.asked.total() == 11 and server.asked.most_common(1)[0][1] == 2
    found = totals(tmp_path)
    assert (found.lost, found.replies) == (2, 9), "both may be paid for"
    assert found.spent > 2 * 4096 / 1e6


def test_a_kept_reply_that_cannot_be_read_is_neither_asked_again_nor_lost(tmp_path):
    with MockServer() as server:
        list(engine(server, tmp_path).answer(requests(3), seed=0))
        with sqlite3.connect(tmp_path / "l.sqlite") as ledger:
            ledger.execute("UPDATE requests SET reply = '{}' WHERE request LIKE '%Response 1,%'")
        with pytest.raises(EngineError, match=r"request 'r1' failed: no chat completion: \{\}"):
            list(engine(server, tmp_path).answer(requests(4), seed=0))
        assert server.asked.total() == 4 and totals(tmp_path).lost == 0


NO_SYSTEM = "System role not supported"


def test_a_system_message_can_begin_the_users_turn(tmp_path):
    with MockServer(
        refusal=(400, None, NO_SYSTEM), refuses=lambda asked: asked["messages"][0]["role"] == "system"
    ) as server:
        with pytest.raises(EngineError, match=r"System role not supported; .*engine\.system_in_user=true"):
            list(engine(server, tmp_path).answer(requests(1), seed=0))
        (reply,) = engine(server, tmp_path, system_in_user=True).answer(requests(1), seed=0)
    assert reply.text and server.bodies[-1]["messages"] == [
        {"role": "user", "content": "Judge fairly.\nResponse 0, wörds 雪"}
    ]


def test_the_first_token_comes_with_its_log_probabilities(tmp_path):
    with MockServer() as server:
        plain, likely = engine(server, tmp_path), engine(server, tmp_path, top_logprobs=2)
        (without,), (reply,) = (list(each.answer(requests(1), seed=0)) for each in (plain, likely))
        (again,) = likely.answer(requests(1), seed=0)
    assert [body.get("top_logprobs") for body in server.bodies] == [None, 2] and server.bodies[1]["logprobs"] is True
    assert without.first_token is None and reply.first_token == {"So": -0.1, "<1>": -1.1}
    assert again == replace(reply, was_kept=True)


def test_log_probabilities_that_cannot_be_read_are_no_reply(tmp_path):
    def broken(asked, answer):
        answer["choices"][0]["logprobs"] = {"content": [{"token": "So"}]}
        return answer

    unreadable = pytest.raises(EngineError, match=r"no chat completion: .*logprobs")
    with MockServer(alter=broken) as server, unreadable:
        list(engine(server, tmp_path, top_logprobs=2).answer(requests(1), seed=0))


def test_a_server_that_is_not_there_costs_nothing(tmp_path):
    with MockServer() as server:
        pass
    with pytest.raises(
        EngineError, match=rf"failed 2 times: the connection to {server.address} failed .*; see that the server runs"
    ):
        list(engine(server, tmp_path, attempts=2).answer(requests(1), seed=0))
    assert totals(tmp_path).refused == 2 and totals(tmp_path).lost == 0


@pytest.mark.parametrize("place", range(0, 520, 7))
def test_no_part_of_a_key_is_shown_wherever_a_message_is_cut(place):
    said = shown("x" * place + KEY + "y" * 600, [KEY])
    assert not any(KEY[:size] in said for size in range(4, len(KEY) + 1)) and len(said) <= 500


def test_the_key_in_an_answer_that_cannot_be_read_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    unreadable = pytest.raises(EngineError, match=r"no chat completion: .*\*\*\*")
    with (
        MockServer(alter=lambda asked, answer: {"headers": f"{'x' * 170} Bearer {KEY}"}) as server,
        unreadable as caught,
    ):
        list(engine(server, tmp_path, key_variable="JUDGE_KEY").answer(requests(1), seed=0))
    assert KEY[:6] not in "".join(traceback.format_exception(caught.value))


def test_the_key_is_nowhere(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with MockServer() as server:
        asking = engine(server, tmp_path, key_variable="JUDGE_KEY")
        list(asking.answer(requests(3), seed=0))
        server.refusal = (401, None, f"Incorrect API key provided: {KEY}")
        with pytest.raises(EngineError) as caught:
            list(asking.answer(requests(5), seed=0))
    shown = "".join(traceback.format_exception(caught.value))
    assert "Incorrect API key provided: ***" in shown
    assert f"{server.address} does not accept the key in the environment variable JUDGE_KEY" in shown
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in shown + caplog.text + repr(asking) and KEY.encode() not in files
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(EngineError, match="the environment variable JUDGE_KEY holds no key"):
        next(asking.answer(requests(1), seed=0))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"key_variable": KEY}, "the name of an environment variable"),
        ({"base_url": f"http://user:{KEY}@host/v1"}, "holds a user and a password"),
        ({"max_spend": 1.0}, "caps nothing while"),
        ({"in_flight": 0}, "must be 1 to 1000"),
        ({"attempts": 0}, "must be at least 1"),
        ({"extra": {"temperature": 1, "n": 2}}, "extra holds n, temperature"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, bad, says):
    with pytest.raises(ValueError, match=says) as caught:
        ServerEngine(model="m", ledger=tmp_path / "l", **bad)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["server", "openai"])
def test_the_engines_of_the_configs_are_those_of_the_paper(name):
    config = build(composed("eval", ["policy=x", f"engine={name}", "engine.model=m"]), EvalConfig)
    engine = config.engine
    assert isinstance(engine, ServerEngine)
    body = engine._body(Request(id="r", messages=[], sampling=PAPER), seed=0)
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (1.0, 0.9, 4096)
    assert body.get("repetition_penalty") == (1.03 if name == "server" else None)
    with pytest.raises(ConfigError, match="caps nothing"):
        build(composed("eval", ["policy=x", f"engine={name}", "engine.model=m", "engine.max_spend=1"]), EvalConfig)


@pytest.mark.parametrize("connected", [False, True])
def test_the_server_of_these_tests_ends_without_a_word(monkeypatch, caplog, connected):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with MockServer() as server:
        connection = socket.create_connection(("127.0.0.1", server.port)) if connected else None
        time.sleep(0.05)
    if connection is not None:
        connection.close()
    assert not raised and not caplog.records
