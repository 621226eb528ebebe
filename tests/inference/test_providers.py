"""Models of other providers through inspect_ai: the same ledger, caps and retries as for a server."""

import asyncio
import importlib.util
import json
import traceback
from dataclasses import replace

import pytest

from multifaceted.config import build
from multifaceted.evaluation.config import EvalConfig
from multifaceted.inference.providers import InspectEngine
from multifaceted.inference.requests import EngineError, Request
from multifaceted.inference.spend import Price
from tests.conftest import composed
from tests.inference.asking import requests
from tests.inference.asking import totals as totals_of
from tests.inference.server import KINDS, MockServer

needed = pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="needs the extra `inspect`")
MODEL = "openai-api/mock/judge"
KEY = "sk-a-very-secret-key"


@pytest.fixture
def server(monkeypatch):
    """A server that inspect_ai's provider for compatible ones asks."""
    with MockServer() as mock:
        monkeypatch.setenv("MOCK_BASE_URL", mock.address)
        monkeypatch.setenv("MOCK_API_KEY", KEY)
        yield mock


def engine(tmp_path, **changes):
    return InspectEngine(**{"model": MODEL, "ledger": tmp_path / "l.sqlite", "in_flight": 8, **changes})


def totals(tmp_path):
    return totals_of(tmp_path, MODEL)


@needed
def test_a_request_is_sent_with_all_settings_and_its_reply_is_kept(tmp_path, server):
    asking = engine(
        tmp_path,
        **dict(temperature=0.5, top_p=0.9, repetition_penalty=1.03, max_tokens=99, top_logprobs=2),
        extra={"presence_penalty": 0.25},
    )
    (reply,) = asking.answer(requests(1), seed=3)
    (body,), (asked,) = server.bodies, requests(1)
    assert [{"role": m["role"], "content": m["content"]} for m in body.pop("messages")] == asked.messages
    assert 0 <= body.pop("seed") < 2**31
    assert body == {
        **dict(model="judge", temperature=0.5, top_p=0.9, repetition_penalty=1.03, max_tokens=99),
        **dict(logprobs=True, top_logprobs=2, presence_penalty=0.25),
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert reply.text.startswith("So it is. [RESULT] ") and reply.finished
    assert (reply.prompt_tokens, reply.completion_tokens) == (6, 5)
    assert reply.first_token == {"So": -0.1, "<1>": -1.1}
    assert list(asking.answer(requests(1), seed=3)) == [replace(reply, was_kept=True)] and server.asked.total() == 1
    with pytest.raises(EngineError, match="max_requests=3 is reached"):
        list(replace(asking, max_requests=3).answer(requests(9), seed=3))
    assert server.asked.total() == 3


@needed
def test_a_later_turn_is_asked_with_what_was_said(tmp_path, server):
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}, {"role": "user", "content": "??"}]
    list(engine(tmp_path).answer([Request(id="r", messages=said)], seed=0))
    assert server.bodies[0]["messages"] == said


@needed
def test_what_inspect_ai_sends_and_a_server_is_asked_are_kept_apart(tmp_path, server):
    from multifaceted.inference.server import ServerEngine

    list(engine(tmp_path).answer(requests(1), seed=0))
    same = ServerEngine(model=MODEL, ledger=tmp_path / "l.sqlite", base_url=server.address)
    (reply,) = same.answer(requests(1), seed=0)
    assert not reply.was_kept


@needed
def test_faults_that_pass_are_tried_again_by_us_alone(tmp_path, server):
    server.faults = 0.4
    replies = list(engine(tmp_path, timeout=1.5, in_flight=32, attempts=12).answer(requests(60), seed=0))
    counts, found = server.counts(), totals(tmp_path)
    assert len(replies) == 60 and all(counts["met"][kind] for kind in KINDS)
    assert sum(not reply.finished for reply in replies) == counts["met"]["cut"]
    assert (found.sends, found.replies) == (counts["asked"], 60), "no client below ours sends again"
    assert found.refused == counts["met"]["rate_limit"] + counts["met"]["error"]
    assert found.lost == counts["met"]["timeout"]


@needed
@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        ((401, None, f"no such key: {KEY}"), r"no such key: \*\*\*; the key is not accepted: set [A-Z_]+_KEY"),
        ((404, None, "no such model"), "there is no such model"),
        ((429, "insufficient_quota", "no money"), "the quota is exhausted"),
    ],
)
def test_what_concerns_every_request_ends_the_run(tmp_path, server, refusal, says):
    server.refusal = refusal
    with pytest.raises(EngineError, match=says) as caught:
        list(engine(tmp_path, in_flight=4).answer(requests(30), seed=0))
    assert server.asked.total() <= 4 and totals(tmp_path).spent == 0
    assert KEY not in "".join(traceback.format_exception(caught.value))


@needed
@pytest.mark.parametrize("code", [None, "context_length_exceeded", "content_filter"])
def test_a_refusal_is_no_answer_and_does_not_keep_the_others(tmp_path, server, code):
    """inspect_ai makes an answer of some errors, with the error's text."""
    server.refusal, server.refuses = (400, code, "that cannot be"), lambda asked: "Response 2," in json.dumps(asked)
    with pytest.raises(EngineError, match=r"1 have no answer, 'r2'; the first: request 'r2' failed: .*that cannot be"):
        list(engine(tmp_path).answer(requests(9), seed=0))
    found = totals(tmp_path)
    assert (found.replies, found.refused, server.asked.total()) == (8, 1, 9)


@needed
def test_what_the_provider_cannot_read_may_be_paid_for(tmp_path, server):
    server.alter = lambda asked, answer: {"choices": 3}
    with pytest.raises(EngineError, match="request 'r0' failed 2 times: "):
        list(engine(tmp_path, price=Price(output=1.0)).answer(requests(1), seed=0))
    assert (totals(tmp_path).lost, server.asked.total()) == (2, 2)


@pytest.fixture
def provider():
    """A provider of ours within inspect_ai; what its `script` gives, or raises, is its answer."""
    from inspect_ai.model import ModelAPI, RetryDecision, modelapi

    class Scripted(ModelAPI):
        script = staticmethod(lambda text: None)

        async def generate(self, input, tools, tool_choice, config):
            return await type(self).script(input[-1].text)

        def should_retry(self, ex):
            return RetryDecision.transient(retry_after=0.01) if isinstance(ex, ConnectionError) else False

    modelapi(name="scripted")(Scripted)
    return Scripted


@needed
def test_thoughts_are_no_text_and_cached_tokens_are_paid_for(tmp_path, provider):
    from inspect_ai.model import ContentReasoning, ContentText, ModelOutput, ModelUsage

    async def script(text):
        content = [ContentReasoning(reasoning="hm"), ContentText(text="So it is.")]
        output = ModelOutput.from_content("m", content, stop_reason="max_tokens")
        output.usage = ModelUsage(
            input_tokens=3, input_tokens_cache_read=4, input_tokens_cache_write=5, output_tokens=6
        )
        return output

    provider.script = staticmethod(script)
    (reply,) = engine(tmp_path, model="scripted/m").answer(requests(1), seed=0)
    assert (reply.text, reply.finished, reply.first_token) == ("So it is.", False, None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (12, 6)


@needed
def test_what_passes_is_what_the_provider_says(tmp_path, provider):
    from inspect_ai.model import ModelOutput

    asked = []

    async def script(text):
        asked.append(text)
        if asked.count(text) < 3:
            raise ConnectionError("the line is cut")
        return ModelOutput.from_content("m", "So it is.")

    provider.script = staticmethod(script)
    assert len(list(engine(tmp_path, model="scripted/m").answer(requests(2), seed=0))) == 2
    found = totals_of(tmp_path, "scripted/m")
    assert (found.sends, found.lost, found.replies) == (6, 4, 2), "who knows what was computed"


@needed
def test_what_inspect_ai_itself_refuses_ends_the_run_and_costs_nothing(tmp_path, provider):
    from inspect_ai._util.error import PrerequisiteError

    async def script(text):
        raise PrerequisiteError("[bold]m[/bold] does not support that")

    provider.script = staticmethod(script)
    with pytest.raises(EngineError, match="request 'r0' failed: m does not support that"):
        list(engine(tmp_path, model="scripted/m", in_flight=1).answer(requests(3), seed=0))
    assert (totals_of(tmp_path, "scripted/m").sends, totals_of(tmp_path, "scripted/m").lost) == (1, 0)


@needed
def test_an_attempt_ends_in_time(tmp_path, provider):
    async def script(text):
        await asyncio.sleep(60)

    provider.script = staticmethod(script)
    with pytest.raises(EngineError, match="request 'r0' failed 2 times: no answer in time"):
        list(engine(tmp_path, model="scripted/m", timeout=0.05, attempts=2).answer(requests(1), seed=0))
    assert totals_of(tmp_path, "scripted/m").lost == 2


@needed
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "nobody/m"}, "nobody/m cannot be asked through inspect_ai: Model API nobody"),
        ({"model": "openai-api/none/m"}, "No NONE_API_KEY defined in the environment"),
        ({"extra": {"temprature": 1}}, "extra does not fit .*temprature"),
    ],
)
def test_what_inspect_ai_refuses_is_told_before_anything_is_asked(tmp_path, changes, says):
    with pytest.raises(EngineError, match=says):
        list(engine(tmp_path, **changes).answer(requests(1), seed=0))


@needed
@pytest.mark.parametrize(
    ("changes", "says"),
    [({"model": "gpt-4"}, "expected <provider>/<model>"), ({"extra": {"cache": True}}, "extra holds cache")],
)
def test_impossible_settings_are_refused(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        engine(tmp_path, **changes)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs inspect_ai; pip install --editable '\.\[inspect\]'"):
        engine(tmp_path)


@needed
def test_the_configs_are_for_providers_that_know_no_repetition_penalty():
    overrides = ["engine=inspect", "engine.model=a/b", "judge=inspect", "judge.engine.model=c/d", "task=rubric"]
    config = build(composed("eval", overrides), EvalConfig)
    assert isinstance(config.engine, InspectEngine) and config.engine.omits == ["repetition_penalty"]
    assert config.judge is not None and config.judge.name == "c/d"
    assert isinstance(config.judge.engine, InspectEngine) and config.judge.engine.temperature == 1.0
