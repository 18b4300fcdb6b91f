"""Conversations as documents: nothing is lost, nothing hostile gets in, and Markdown keeps its structure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from core.engine.conversation import Conversation, Message
from core.engine.events import Reason, Reply, Stats
from core.errors import UserError
from core.history.archive import from_json, markdown, to_json
from core.history.documents import documents
from core.history.records import Chat, SavedMessage
from core.options import Sampling
from core.text.sanitize import sanitize

LAUNCH = {
    "checkpoint": "/models/llama",
    "tokenizer": "/models/tokenizer.model",
    "device": "cuda:1",
    "quant": "int4",
    "context": 2048,
    "vram": 6 * 10**9,
    "offload": True,
    "cpu_layers": ["layers.0-3", "output"],
    "sim_link": 2.5,
    "raw": True,
}

# --- random conversations -----------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=30)
said = texts.map(sanitize)  # as all replies are
singles = st.floats(0, 1e6, width=32)
times = st.floats(0, 2e9)
counts = st.integers(0, 2**63 - 1)
stats = st.builds(
    Stats,
    **{field.name: st.none() | (counts if "bytes" in field.name else singles) for field in fields(Stats)},
)
settings = st.just({}) | st.builds(
    lambda sampling, system: asdict(sampling) | {"system": system},
    st.builds(
        Sampling,
        temperature=st.floats(0, 5),
        top_k=st.integers(0, 1000),
        mirostat=st.integers(0, 2),
        seed=st.none() | counts,
        max_tokens=st.integers(1, 5000),
    ),
    st.none() | texts,
)


@st.composite
def replies(draw: st.DrawFn, id: int, parent: int, start: int | None) -> SavedMessage:
    tokens = tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=5)))
    surprise = (
        tuple(draw(st.one_of(singles, st.just(math.inf))) for _ in tokens) if draw(st.booleans()) else ()
    )
    reason = draw(st.none() | st.sampled_from(Reason))
    mu = draw(st.none() | st.floats(-50, 50))
    message = Message(
        id, parent, "assistant", draw(said), tokens, surprise, mu, reason, start, draw(st.none() | texts)
    )
    reply = None
    if reason is not None and draw(st.booleans()):
        reply = Reply(
            message.text, tokens, surprise, reason, draw(counts), mu, draw(counts), draw(counts), draw(stats)
        )
    return SavedMessage(message, draw(times), draw(texts), draw(texts), draw(settings), reply)


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """A chat whose ids have gaps, and whose users and model take turns along every path."""
    messages: list[SavedMessage] = []
    id = 0
    for _ in range(draw(st.integers(0, 8))):
        id += draw(st.integers(1, 1000))
        behind = draw(
            st.none() | st.sampled_from([saved.message for saved in messages]) if messages else st.none()
        )
        if behind is not None and behind.role == "user":
            users = [saved.message.id for saved in messages if saved.message.role == "user"]
            messages.append(draw(replies(id, behind.id, draw(st.none() | st.sampled_from(users)))))
        else:
            parent = None if behind is None else behind.id
            messages.append(SavedMessage(Message(id, parent, "user", draw(texts)), draw(times)))
    head = draw(
        st.none() | st.sampled_from([saved.message.id for saved in messages]) if messages else st.none()
    )
    return Chat(
        draw(st.integers(1, 99)),
        draw(texts),
        draw(times),
        draw(times),
        head,
        draw(texts),
        LAUNCH,
        tuple(messages),
    )


def renumbered(chat: Chat) -> Chat:
    """The chat with the number 0, and its messages counted from 1."""
    numbers: dict[int | None, int | None] = {None: None}
    numbers |= {saved.message.id: number for number, saved in enumerate(chat.messages, 1)}

    def again(message: Message) -> Message:
        id = numbers[message.id]
        assert id is not None
        return replace(message, id=id, parent=numbers[message.parent], start=numbers[message.start])

    messages = tuple(replace(saved, message=again(saved.message)) for saved in chat.messages)
    return replace(chat, id=0, head=numbers[chat.head], messages=messages)


@given(st.lists(chats(), min_size=1, max_size=3))
def test_nothing_is_lost_on_the_way_out_and_in(some: list[Chat]) -> None:
    written = [json.dumps(to_json(chat), allow_nan=False) for chat in some]
    expected = [renumbered(chat) for chat in some]
    assert [from_json(one) for one in documents("\n".join(written).encode())] == expected
    assert [from_json(one) for one in documents(f"[{','.join(written)}]".encode())] == expected
    pretty = json.dumps(to_json(some[0]), indent=1, ensure_ascii=False)
    assert [from_json(one) for one in documents(b"\xef\xbb\xbf" + pretty.encode())] == expected[:1]
    for chat in expected:  # a tree as the engine takes it
        Conversation([saved.message for saved in chat.messages], chat.head)


WRONG = [
    None, True, -1, 0, 1, 2, 3, 10**400, 2**31, 1.5, 1e308, math.nan, "", "user", "\ud800", "a\nb",
    [], {}, [[]],
]  # fmt: skip


@given(chats(), st.data())
def test_whatever_is_changed_in_a_document_it_is_a_tree_or_one_line(chat: Chat, data: st.DataObject) -> None:
    document = json.loads(json.dumps(to_json(chat)))
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(document)
    node, key = data.draw(st.sampled_from(places))
    node[key] = data.draw(st.sampled_from(WRONG))
    said = ""
    try:
        found = from_json(document)
    except UserError as error:
        said = str(error)
    else:
        Conversation([saved.message for saved in found.messages], found.head)
        assert from_json(json.loads(json.dumps(to_json(found), allow_nan=False))) == found
    assert "\n" not in said
    assert len(said) < 300


# --- documents of others ------------------------------------------------------------------------


def a_chat() -> Chat:
    """Two questions, the second one asked twice, and its reply given twice."""
    figures = Stats(ttft_s=0.5, decode_tok_s=2.53)

    def reply(id: int, parent: int, text: str, reason: Reason = Reason.STOP) -> SavedMessage:
        message = Message(id, parent, "assistant", text, (1, 2), (1.0, 0.5), None, reason, None, "abc")
        said = Reply(text, (1, 2), (1.0, 0.5), reason, 7, None, 10, 0, figures)
        return SavedMessage(message, 6e8, "llama", "chatml", {"system": "Be brief."}, said)

    def user(id: int, parent: int | None, text: str) -> SavedMessage:
        return SavedMessage(Message(id, parent, "user", text), 6e8)

    messages = (
        user(3, None, "Hello"),
        reply(4, 3, "Hi"),
        user(5, 4, "Why?"),
        reply(6, 5, "Because."),
        user(8, 4, "Why not?"),
        reply(9, 8, "So."),
        reply(10, 8, "No\n\nreason", Reason.LENGTH),
    )
    return Chat(1, "Greetings", 6e8, 6e8, 10, "llama", {"demo": True}, messages)


def changed(change: Callable[[dict[str, Any]], object]) -> object:
    document = json.loads(json.dumps(to_json(a_chat())))
    change(document)
    return document


def within(place: int, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["messages"][place].update(values)


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another file": (lambda d: d.pop("format"), 'not a chat of llama-tui: "format" is not "llama-tui chat"'),
    "a later version": (lambda d: d.update(version=2), "version 2, but this llama-tui reads 1; update it"),
    "a missing key": (lambda d: d["messages"][1].pop("tokens"), "messages[1].tokens is missing"),
    "no text": (within(2, text=None), "messages[2].text is null, not a text"),
    "half a pair": (within(2, text="a\ud800"), "messages[2].text is 'a', not a text without halves"),
    "no list": (lambda d: d.update(messages={}), "messages is an object of 0, not a list"),
    "no object": (lambda d: d.update(messages=[7]), "messages[0] is 7, not an object"),
    "unknown parent": (
        within(2, parent=7),
        "messages[2].parent is 7, not the id of an earlier message, or null",
    ),
    "younger parent": (within(2, parent=6), "messages[2].parent is 6, not the id of an earlier message"),
    "own parent": (within(2, parent=5), "messages[2].parent is 5, not the id of an earlier message"),
    "the same id": (within(2, id=4), "messages[2].id is 4, not more than 4"),
    "huge id": (within(6, id=2**63), "messages[6].id is a huge number, not a whole number from 0 to"),
    "negative id": (within(0, id=-1), "messages[0].id is -1, not a whole number"),
    "true as an id": (within(0, id=True), "messages[0].id is true, not a whole number"),
    "a role": (within(0, role="system"), "messages[0].role is 'system', not user or assistant"),
    "a reply to nothing": (within(1, parent=None), "messages[1].parent is null, not a message of the user"),
    "a reply to a reply": (within(3, parent=4), "messages[3].parent is 4, not a message of the user"),
    "two messages in a row": (within(2, parent=3), "messages[2].parent is 3, not a reply, or null"),
    "a start": (within(3, start=4), "messages[3].start is 4, not a message of the user"),
    "negative token": (within(1, tokens=[1, -2]), "messages[1].tokens holds -2, which is not a token id"),
    "large token": (within(1, tokens=[2**31, 2]), "messages[1].tokens holds 2147483648, which is not"),
    "token of text": (within(1, tokens=["1", 2]), "messages[1].tokens holds '1', which is not a token id"),
    "too few bits": (within(1, surprise=[1.0]), "surprise is a list of 1, not one of 2"),
    "no number": (within(1, surprise=[1.0, math.nan]), "messages[1].surprise holds nan, which is not"),
    "infinite mu": (within(1, mu=math.inf), "messages[1].mu is inf, not a number"),
    "a reason": (within(1, reason="bored"), "messages[1].reason is 'bored', not null or one of stop, length"),
    "a setting": (
        within(1, settings={"temperature": 9}),
        "messages[1].settings.temperature is 9, not a number from 0 to 5",
    ),
    "a choice": (within(1, settings={"mirostat": 3}), "settings.mirostat is 3, not one of 0, 1, 2"),
    "figures of no end": (within(1, reason=None), "figures is an object of 4, not null, though the reply"),
    "a figure": (
        lambda d: d["messages"][1]["figures"]["stats"].update(ttft_s="fast"),
        "messages[1].figures.stats.ttft_s is 'fast', not a number",
    ),
    "a time": (lambda d: d.update(updated=1e300), "updated is 1e+300, not a time in seconds since 1970"),
    "unknown head": (lambda d: d.update(head=7), "head is 7, not the id of an earlier message, or null"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_is_wrong_with_a_document_is_said_in_a_line(case: str) -> None:
    change, message = MISTAKES[case]
    with pytest.raises(UserError) as refused:
        from_json(changed(change))
    assert message in str(refused.value)


def test_no_text_of_a_file_reaches_the_terminal_through_an_error() -> None:
    with pytest.raises(UserError) as refused:
        from_json(changed(within(0, role="\x1b]0;gotcha\x07\nuser")))
    assert str(refused.value) == "messages[0].role is ']0;gotcha user', not user or assistant"


def test_a_reply_is_without_what_no_terminal_should_get() -> None:
    chat = from_json(changed(within(1, text="a\x1b[2J\u202eb\n")))
    assert chat.messages[1].message.text == "a[2Jb\n"


def test_unknown_keys_are_left_out() -> None:
    def more(document: dict[str, Any]) -> None:
        document["plugins"] = [1]
        document["messages"][1] |= {"mood": "good"}
        document["messages"][1]["settings"]["mood"] = "good"
        document["messages"][1]["figures"]["stats"]["mood"] = "good"

    assert from_json(changed(more)) == from_json(to_json(a_chat()))


def test_a_launch_can_only_name_a_model_and_how_it_is_loaded() -> None:
    hostile = {
        "checkpoint": "relative/path",
        "tokenizer": "/a\nb",
        "demo_file": ["/list"],
        "demo": 1,
        "device": "cuda:1; reboot",
        "synthetic": "9b",
        "kernels": {"native": 1},
        "context": "4096",
        "vram": -1,
        "sim_link": math.nan,
        "offload_exclusion": ["--help"],
        "stats": "/etc/passwd",
        "script": "/etc/passwd",
        "kv": "int4",
        "\ud800": "x",
    }
    for key, value in hostile.items():
        assert from_json(changed(lambda d, k=key, v=value: d.update(launch={k: v}))).launch == {}, key
    good = from_json(changed(lambda document: document.update(launch={**LAUNCH, "stats": "/etc/passwd"})))
    assert good.launch == LAUNCH


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": "\xff"}', "byte 7 is 0xff, which is not UTF-8"),
        (b"", "not valid JSON (Expecting value"),
        (b'{"a": 1', "not valid JSON (Expecting ',' delimiter: line 1 column 8"),
        (b'{"a": NaN}', "not valid JSON (NaN is no number)"),
        (b"[" * 200_000, "not valid JSON (nested too deeply)"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON (Exceeds the limit"),
        (b'{"a": 1}\n\n{"a": }\n', "line 3: not valid JSON (Expecting value"),
    ],
)
def test_what_is_no_json_is_said(data: bytes, message: str) -> None:
    with pytest.raises(UserError) as refused:
        documents(data)
    assert str(refused.value).startswith(message)


# --- Markdown -----------------------------------------------------------------------------------


def test_markdown_shows_the_way_to_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert markdown(a_chat()) == (
        "# Greetings\n\n"
        "1989-01-05 10:40 · llama · 4 messages\n\n"
        "System prompt:\n\n"
        "> Be brief.\n\n"
        "## You\n\n"
        "> Hello\n\n"
        "## Reply · llama\n\n"
        "> Hi\n\n"
        "*2 tokens · 2.53 tok/s · seed 7 · stop*\n\n"
        "## You (version 2 of 2)\n\n"
        "> Why not?\n\n"
        "## Reply · llama (version 2 of 2)\n\n"
        "> No\n>\n> reason\n\n"
        "*2 tokens · 2.53 tok/s · seed 7 · length*\n"
    )
    assert markdown(replace(a_chat(), head=None)).endswith("· llama · 0 messages\n")


marks = st.sampled_from(
    ["# ", "## You", "\n", "\n\n", "```", "~~~", "<!--", "<script>", "</div>", "> ", "---", "===", "- ",
     "1. ", "    ", "|", "\t", "\r", "\u2028", "[a]: b", "*", "\\", "text", "\x1b[2J"]
)  # fmt: skip
hostile_texts = st.lists(marks, max_size=12).map("".join)


@given(hostile_texts, hostile_texts, hostile_texts)
def test_no_text_passes_for_structure(title: str, asked: str, said: str) -> None:
    """The oracle is a Markdown parser: what it finds outside quotes is what we wrote."""
    chat = a_chat()
    asking, replying = chat.messages[:2]
    asking = replace(asking, message=replace(asking.message, text=asked))
    replying = replace(
        replying, model=title, message=replace(replying.message, text=said), settings={"system": said}
    )
    chat = replace(chat, title=title, model=title, messages=(asking, replying), head=4)
    text = markdown(chat)
    assert "\x1b" not in text
    tokens = MarkdownIt("commonmark").parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0:
            assert {child.type for child in inline.children or ()} <= {"text", "text_special"}
    outside = [token for token in tokens if token.level == 0 and token.nesting >= 0]
    kinds = [f"{token.type} {token.tag}" for token in outside]
    system = ["paragraph_open p", "blockquote_open blockquote"] if said else []
    assert kinds == [
        "heading_open h1", "paragraph_open p", *system,
        "heading_open h2", "blockquote_open blockquote",
        "heading_open h2", "blockquote_open blockquote", "paragraph_open p",
    ]  # fmt: skip
