"""The tree of messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.engine.conversation import Conversation, Message
from core.engine.events import Reason


def say(talk: Conversation, text: str, **reply: object) -> Message:
    """A reply behind a message of the same text."""
    talk.add("user", text)
    message = replace(talk.add("assistant", text.upper()), **reply)  # type: ignore[arg-type]
    talk.put(message)
    return message


def texts(talk: Conversation) -> str:
    return " ".join(message.text for message in talk.path())


def test_the_head_says_where_the_next_message_goes() -> None:
    talk = Conversation()
    first = say(talk, "a", mu=3.0)
    say(talk, "b")
    assert texts(talk) == "a A b B"
    assert talk.mu == 3.0  # the last reply that has one
    talk.rewind(first.parent)
    other = talk.add("assistant", "x")
    talk.put(replace(other, mu=1.0, start=0))
    assert texts(talk) == "a x"
    assert (talk.mu, talk.start) == (1.0, 0)
    assert [m.text for m in talk.siblings(other.id)] == ["A", "x"]
    assert talk.leaf(first.id).text == "B"
    talk.rewind(talk.leaf(first.id).id)
    assert texts(talk) == "a A b B"
    assert talk.start is None
    talk.rewind(None)
    assert talk.path() == []
    assert talk.mu is None
    assert [m.text for m in talk.children(None)] == ["a"]


def test_what_does_not_exist_or_is_in_use() -> None:
    talk = Conversation()
    reply = say(talk, "a")
    with pytest.raises(KeyError):
        talk.rewind(99)
    with pytest.raises(ValueError, match="tree"):
        talk.put(Message(99, 98, "user", ""))
    for used in (0, reply.id):
        with pytest.raises(ValueError, match="in use"):
            talk.discard(used)
    talk.rewind(0)
    talk.discard(reply.id)
    assert list(talk.messages) == [0]


def test_only_a_tree_can_be_opened() -> None:
    a, b = Message(3, None, "user", "a"), Message(5, 3, "assistant", "b")
    talk = Conversation([a, b], 5)
    assert talk.add("user", "c").id == 6
    for messages, head in (([b, a], 5), ([a, a], 3), ([a], 5)):
        with pytest.raises(ValueError, match=r"tree|head"):
            Conversation(messages, head)


def test_which_replies_can_go_on() -> None:
    reply = Message(1, 0, "assistant", "b")
    ended = {reason: replace(reply, reason=reason).cut_off for reason in Reason}
    assert ended == {Reason.STOP: False, Reason.LENGTH: True, Reason.CANCELLED: True, Reason.ERROR: True}
    assert not reply.cut_off
