"""/cache, /progress, /unload, /mirostat and /max_len, as the chat and the earlier console have them."""

from __future__ import annotations

from core.engine.commands import Configure, Load, ReadCache, Submit, Unload
from core.options import Sampling
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Open


async def test_cache_says_what_is_held_and_what_runs_anew(open_chat: Open) -> None:
    async with open_chat(size=(220, 40)) as driver:
        await driver.say("/cache")
        assert driver.sent(ReadCache) == [ReadCache()]
        # 24 tokens of 23040 bytes, in a context of 4096
        said = (
            "KV cache: 24 of 4096 tokens (1 %), 553 kB of 94.4 MB; "
            "the next message runs 3 tokens anew beside its own"
        )
        await driver.until(lambda: said in driver.screen_text)


async def test_without_a_model_there_is_no_cache_and_nothing_to_unload(open_chat: Open) -> None:
    async with open_chat(ready=False) as driver:
        for command in ("/cache", "/unload"):
            await driver.say(command)
            assert "the model is still loading" in driver.status
        assert driver.sent(ReadCache) == driver.sent(Unload) == []


async def test_progress_keeps_what_the_status_line_shows(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four"])) as driver:
        await driver.say("Count")
        await driver.advance(0.35)
        await driver.say("/progress")
        await driver.advance(5)
        assert "token 2/512" in driver.screen_text  # still, though the reply has ended


async def test_unload_keeps_the_conversation_and_the_next_message_loads_again(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one", "two"])) as driver:
        await driver.say("first")
        await driver.advance(2)
        await driver.say("/unload")
        assert driver.sent(Unload) == [Unload()]
        await driver.until(lambda: "the model is unloaded · the next message loads it again" in driver.status)
        assert "fake · unloaded" in driver.screen_text
        assert "first" in driver.screen_text
        await driver.say("/cache")
        assert "the model is unloaded" in driver.status
        await driver.say("second")
        await driver.advance(1.1)
        assert "loaded again for this message" in driver.screen_text
        assert "reading weights 42 %" in driver.status
        await driver.advance(5)
        assert driver.text_of(2) == "two"
        assert driver.sent() == [Submit(1, "first"), Submit(2, "second")]
        assert len(driver.sent(Load)) == 1  # it is the engine that loads again
        assert "fake-135m" in driver.screen_text


async def test_unload_waits_for_no_reply(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four"])) as driver:
        await driver.say("Count")
        await driver.advance(0.35)
        await driver.say("/unload")
        assert "a reply is still running" in driver.status
        assert driver.sent(Unload) == []


async def test_mirostat_takes_version_tau_and_eta(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("/mirostat 2 4.5 0.2")
        expected = Sampling(mirostat=2, mirostat_tau=4.5, mirostat_eta=0.2)
        assert driver.last_sampling == expected
        assert "Mirostat is now 2, tau 4.50 bits, eta 0.20" in driver.status
        await driver.say("/mirostat")
        assert "Mirostat is 2, tau 4.50 bits, eta 0.20" in driver.status
        sent = len(driver.sent(Configure))
        for wrong, why in (
            ("/mirostat 2 99", "out of range"),
            ("/mirostat 3", "choose one of 0, 1, 2"),
            ("/mirostat 1 2 0.1 4", "VERSION, TAU and ETA at most"),
        ):
            await driver.say(wrong)
            assert why in driver.status
        assert len(driver.sent(Configure)) == sent  # all of it or nothing
        assert driver.last_sampling == expected
        await driver.say("/mirostat 0")
        assert "Mirostat is now off" in driver.status


async def test_max_len_shows_what_each_context_costs(open_chat: Open) -> None:
    async with open_chat(size=(120, 40)) as driver:
        await driver.say("/max_len")
        assert "context is auto" in driver.status
        assert "[4096] 94.4 MB" in " ".join(driver.screen_text.split())


async def test_a_theme_is_taken_by_its_name(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("/theme nord")
        assert driver.app.theme == "nord"
        await driver.say("/theme nrod")
        assert "there is no such theme; did you mean nord?" in driver.status
        assert driver.app.theme == "nord"
