"""Conversations, whatever engine carries them."""

from hypothesis import given
from hypothesis import strategies as st

from multifaceted.inference.requests import in_user_turn

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
