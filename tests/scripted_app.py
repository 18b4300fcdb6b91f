"""The app on a terminal with an engine that says what it is told: `python -m tests.scripted_app`.

Everything that others have a say in is hostile: the replies are those of tests.hostile, one after the other,
and so are the names of model, card and chat, the notes and what goes wrong.
"""

from __future__ import annotations

from dataclasses import replace

from core.engine.conversation import Message
from core.engine.events import Failed, Notice, Saved
from core.options import LoadOptions, default_values
from tests import fake_backend
from tests.fake_backend import LLAMA_7B, LiveFakeBackend, loads
from tests.fake_plans import plan_7b, readings
from tests.hostile import CASES, PAYLOAD
from tui.app import show
from tui.chat_session import ChatSession
from tui.settings import Settings
from tui.talk import Talk

TOKEN_S = 0.0002
HOSTILE_MODEL = replace(LLAMA_7B, name=PAYLOAD, dtype=PAYLOAD, chat_format=PAYLOAD)


class HostileBackend(LiveFakeBackend):
    """With the first message it says all that an engine can say."""

    def _begin(self, run: int, user: Message, earlier: Message | None, before: int | None) -> None:
        super()._begin(run, user, earlier, before)
        if run == 1:
            self.emit(Saved(1, PAYLOAD))
            self.emit(Notice(PAYLOAD, "warning"))
            self.emit(Failed(PAYLOAD))
            self.emit(replace(readings(plan_7b()), gpu_name=PAYLOAD))


def main() -> None:
    """Run the app until the user leaves."""
    fake_backend.PREFILL_S = 0.01
    backend = HostileBackend(
        [case.pieces for case in CASES], load=loads(plan_7b(), HOSTILE_MODEL), token_s=TOKEN_S
    )
    session = ChatSession(backend, LoadOptions("x"), Settings(default_values()))
    show(Talk(session, PAYLOAD, (PAYLOAD,)))
    backend.close(1)


if __name__ == "__main__":
    main()
