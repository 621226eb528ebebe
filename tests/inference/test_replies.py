"""What a chat completion says, in all the ways in which servers write one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.inference.faults import Kind, SendError
from multifaceted.inference.replies import reply_of


def completion(content="So it is.", usage=None, **choice):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}
    return json.dumps({"choices": [choice], "usage": usage})


PARTS = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "So "}, {"type": "text", "text": "it is."}]


def test_content_is_a_text_or_has_parts_of_which_some_are_text():
    assert reply_of("r", completion()).text == reply_of("r", completion(PARTS)).text == "So it is."
    assert reply_of("r", completion([])).text == reply_of("r", completion(None)).text == ""
    refusal = {"role": "assistant", "content": None, "refusal": "I will not."}
    assert reply_of("r", completion(message=refusal)).text == "I will not."


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_text_that_was_cut_is_not_finished(reason):
    assert reply_of("r", completion()).finished and not reply_of("r", completion(finish_reason=reason)).finished


@pytest.mark.parametrize("odd", ["12", -1, 1.5, True, None, [3]])
def test_tokens_are_whole_numbers_or_not_counted(odd):
    found = reply_of("r", completion(usage={"prompt_tokens": odd, "completion_tokens": 5}))
    assert (found.prompt_tokens, found.completion_tokens) == (None, 5)


@pytest.mark.parametrize("odd", ["12 tokens", 12, ["prompt_tokens"], {}])
def test_a_usage_that_is_no_object_counts_nothing(odd):
    found = reply_of("r", completion(usage=odd))
    assert found.text and found.prompt_tokens is None is found.completion_tokens


def test_half_characters_are_replaced():
    text = completion("half").replace("half", "half \\ud83d")
    assert reply_of("r", text).text == "half \ufffd"
    logprobs = {"content": [{"top_logprobs": [{"token": "half", "logprob": -0.5}]}]}
    text = completion(logprobs=logprobs).replace("half", "half \\ud83d")
    assert reply_of("r", text).first_token == {"half \ufffd": -0.5}


def likeliest(*pairs):
    return {"content": [{"token": "x", "top_logprobs": [{"token": t, "logprob": p} for t, p in pairs]}]}


def test_of_tokens_with_the_same_text_the_likeliest_counts():
    found = reply_of("r", completion(logprobs=likeliest(("A", -2), ("B", -0.5), ("A", -1.0))))
    assert found.first_token == {"A": -1.0, "B": -0.5}


@pytest.mark.parametrize("nothing", [None, {}, {"content": None}, {"content": []}, likeliest()])
def test_no_log_probabilities_are_none(nothing):
    assert reply_of("r", completion(logprobs=nothing)).first_token is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "[]",
        "3",
        '{"choices": []}',
        '{"error": {"message": "upstream"}}',
        completion(3),
        completion({"text": "So"}),
        completion([{"type": "text"}]),
        completion(["So it is."]),
        completion(message="So it is."),
        completion(logprobs=[3]),
        completion(logprobs={"content": [{"token": "A"}]}),
        completion(logprobs=likeliest(("A", "-0.5"))),
        completion(logprobs=likeliest(("A", None))),
        completion(logprobs=likeliest(("A", float("nan")))),
        completion(logprobs=likeliest((3, -0.5))),
    ],
)
def test_what_cannot_be_read_may_be_paid_for(text):
    with pytest.raises(SendError) as caught:
        reply_of("r", text)
    assert caught.value.kind is Kind.UNREADABLE and caught.value.may_be_paid and text in caught.value.reason


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "text",
                    "type",
                    "usage",
                    "logprobs",
                    "top_logprobs",
                    "token",
                    "logprob",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(value=values, place=st.sampled_from(["content", "usage", "message", "logprobs", "finish_reason"]))
def test_whatever_comes_is_a_reply_or_unreadable(value, place):
    text = completion(**{place: value})
    try:
        reply = reply_of("r", text)
    except SendError:
        return
    json.dumps(reply.text, ensure_ascii=False).encode()
    assert isinstance(reply.text, str) and all((n or 0) >= 0 for n in (reply.prompt_tokens, reply.completion_tokens))
