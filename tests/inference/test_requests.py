"""Conversations, whatever engine carries them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.inference.requests import (
    EngineError,
    Request,
    check_requests,
    in_user_turn,
    request_seed,
    whole_characters,
)
from multifaceted.inference.server import ServerEngine

turns = st.lists(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), st.text())
)


@given(system=st.text(min_size=1), turns=turns)
def test_a_system_message_begins_the_first_users_turn(system, turns):
    conversation = [{"role": "system", "content": system}, {"role": "user", "content": "first"}, *turns]
    before = [dict(message) for message in conversation]
    assert in_user_turn(conversation) == [{"role": "user", "content": f"{system}\nfirst"}, *turns]
    assert conversation == before, "what is given stays as it is"


@given(turns=turns)
def test_a_conversation_without_a_system_message_stays_as_it_is(turns):
    assert in_user_turn(turns) == turns == in_user_turn([{"role": "system", "content": ""}, *turns])


@given(text=st.text(st.characters(codec=None, categories=None)))
def test_every_text_becomes_one_that_can_be_written(text):
    whole = whole_characters(text)
    whole.encode()
    if not any(0xD800 <= ord(character) < 0xE000 for character in text):
        assert whole == text


def test_a_turn_has_a_stream_of_its_own_and_a_first_one_the_stream_it_always_had():
    user, answer = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
    asked = [
        Request(id="r", messages=[user, *[answer, user] * turn], sample=sample)
        for turn in range(3)
        for sample in (0, 1)
    ]
    assert len({request_seed(7, request) for request in asked}) == 6
    assert [request_seed(7, request) for request in asked[:2]] == [11854402482783, 200303746030129]


@pytest.mark.parametrize("role", ["system", "user"])
def test_half_a_character_is_refused_with_the_request(tmp_path, role):
    texts = {"system": "Be brief.", "user": "\U0001f600?"}
    messages = [{"role": name, "content": text} for name, text in texts.items()]
    sound = Request(id="sound", messages=messages)
    check_requests([sound])
    broken = [message | {"content": "rain \ud83d"} if message["role"] == role else message for message in messages]
    engine = ServerEngine(model="m", ledger=tmp_path / "l.sqlite")
    with pytest.raises(EngineError, match=f"request 'broken': the {role}'s message holds half a character"):
        next(engine.answer([sound, Request(id="broken", messages=broken)], seed=0))
