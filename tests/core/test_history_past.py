"""What of earlier conversations is offered again: how models were started, and what was said."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.history.records import Chat, PastLaunch
from core.history.store import History
from core.history.writing import insert_chat, insert_message
from tests.core.saved_chats import chat, reply, user


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    found = History(tmp_path / "history.db")
    yield found
    found.close()


def started(at: float, model: str = "phi", **launch: Any) -> Chat:
    talk = chat(user(1, None, f"said at {at}", at), reply(2, 1, "yes", at), updated=at)
    return replace(talk, model=model, launch=launch)


def test_launches_are_the_newest_of_each_kind(history: History) -> None:
    history.add(started(1.0, "old", checkpoint="/m/old"))
    history.add(started(2.0, checkpoint="/m/phi", quant="int8"))
    history.add(started(3.0, checkpoint="/m/phi"))
    history.add(started(4.0, "renamed", quant="int8", checkpoint="/m/phi"))  # in another order
    history.add(started(5.0, "demo", demo=True))
    assert history.launches(10) == [
        PastLaunch({"demo": True}, "demo", 5.0),
        PastLaunch({"quant": "int8", "checkpoint": "/m/phi"}, "renamed", 4.0),
        PastLaunch({"checkpoint": "/m/phi"}, "phi", 3.0),
        PastLaunch({"checkpoint": "/m/old"}, "old", 1.0),
    ]
    assert [launch.updated for launch in history.launches(2)] == [5.0, 4.0]


def test_what_could_not_be_started_again_as_it_was_is_left_out(history: History) -> None:
    history.add(started(1.0, checkpoint="relative/path"))
    history.add(started(2.0, checkpoint="/m/phi", quant="int3"))
    history.add(started(3.0, checkpoint="/m/phi", prompt="anything"))
    history.add(started(4.0))
    history.add(started(5.0, checkpoint="/m/phi", offload_exclusion=["wq", "wk"]))
    gone = history.add(started(6.0, checkpoint="/m/gone"))
    history.delete(gone)
    assert [launch.updated for launch in history.launches(10)] == [5.0]


def test_said_is_the_users_newest_first_each_once(history: History) -> None:
    first = chat(user(1, None, "one"), reply(2, 1, "no"), user(3, 2, "two"), reply(4, 3, "no"))
    history.add(first)
    history.add(chat(user(1, None, "one"), user(2, None, "x" * 20_000), user(3, None, "\u6771\u4eac")))
    deleted = history.add(chat(user(1, None, "a secret")))
    history.delete(deleted)
    assert history.said(10) == ["\u6771\u4eac", "one", "two"]
    assert history.said(2) == ["\u6771\u4eac", "one"]


@pytest.mark.alone
def test_ten_thousand_chats_are_no_matter(history: History) -> None:
    def fill(db: sqlite3.Connection) -> None:
        for number in range(10_000):
            launch = {"checkpoint": f"/models/{number % 3}"}
            insert_message(
                db,
                insert_chat(db, "a chat", number, number, "phi", launch),
                None,
                None,
                "",
                user(1, None, f"text {number % 1500}"),
            )

    history._database.write(fill)
    began = time.perf_counter()
    launches, said = history.launches(8), history.said(200)
    took = time.perf_counter() - began
    assert took < 0.5  # 0.02 on a quiet machine
    assert [launch.given["checkpoint"] for launch in launches] == ["/models/0", "/models/2", "/models/1"]
    assert (len(said), said[0]) == (200, "text 999")
