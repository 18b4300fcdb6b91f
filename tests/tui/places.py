"""The cases of tests/tui/test_every_action.py for the keys that act in one place only."""

from __future__ import annotations

from core.engine.commands import Apply, Resume
from tests.tui.cases import QUESTION, REPLY, Here, case
from tui.screens.text_dialog import TextDialog

# --- in the settings: the cursor is at the second row, top-p at 0.90 -----------------------------------


def row(here: Here) -> str:
    return str(here.driver.chat.focused.id)


async def top_p(here: Here) -> float:
    await here.do()
    return float(here.values["top_p"])


@case("field_up")
async def goes_a_row_up(here: Here) -> None:
    await here.do()
    assert row(here) == "set-temperature"


@case("field_down")
async def goes_a_row_down(here: Here) -> None:
    await here.do()
    assert row(here) == "set-top_k"


@case("turn")
async def turns_a_toggle(here: Here) -> None:
    for _ in range(20):
        if row(here) != "placement-keep":
            await here.driver.press("down")
    await here.do()
    assert here.session.placement.pending
    here.session.placement.undo()


@case("less")
async def steps_down(here: Here) -> None:
    assert await top_p(here) == 0.85


@case("more")
async def steps_up(here: Here) -> None:
    assert await top_p(here) == 0.95


@case("much_less")
async def steps_far_down(here: Here) -> None:
    assert await top_p(here) == 0.4


@case("much_more")
async def steps_far_up(here: Here) -> None:
    assert await top_p(here) == 1.0


@case("type")
async def types_a_value(here: Here) -> None:
    await here.do()
    await here.driver.press("0", ".", "5", "enter")
    assert here.values["top_p"] == 0.5


@case("default")
async def sets_the_default(here: Here) -> None:
    await here.driver.press("left")
    assert await top_p(here) == 0.9


# --- at the messages: the reply is marked ---------------------------------------------------------------


def marked(here: Here) -> int:
    return int(here.driver.chat.transcript.current or 0)


@case("message_up")
async def marks_the_message_above(here: Here) -> None:
    await here.do()
    assert marked(here) == here.session.conversation.last.user_key


@case("message_down")
async def marks_the_message_below(here: Here) -> None:
    await here.driver.press("up")
    await here.do()
    assert marked(here) == here.session.conversation.last.reply_key


@case("copy_message")
async def copies_the_message(here: Here) -> None:
    await here.driver.press("up")
    await here.do()
    await here.driver.until(lambda: here.driver.app.clipboard == QUESTION)


@case("code_block")
async def marks_a_block_of_code(here: Here) -> None:
    await here.do()
    assert "there is no block of code in this message" in here.driver.status
    last = here.session.conversation.last
    here.driver.chat.transcript.remove_from(last.reply_key)
    here.driver.chat.transcript.add_message(last.reply_key, "assistant", "```\nx = 1\n```")
    here.driver.chat.transcript.mark(last.reply_key)
    await here.do()
    assert here.driver.chat.transcript.code == "x = 1"


@case("edit_message")
async def brings_the_message_back(here: Here) -> None:
    await here.do()
    assert here.driver.chat.prompt.text == QUESTION


@case("regenerate_message")
async def answers_the_message_again(here: Here) -> None:
    await here.do()
    assert isinstance(here.driver.backend.commands[-1], Resume)
    await here.driver.advance(1)


async def two_versions(here: Here) -> None:
    await here.driver.press("r")
    await here.driver.advance(1)
    await here.driver.press("shift+tab")


@case("sibling_before")
async def goes_to_the_version_before(here: Here) -> None:
    await two_versions(here)
    await here.do()
    assert "reply ◂ 1/2 ▸" in here.driver.screen_text


@case("sibling_after")
async def goes_to_the_version_after(here: Here) -> None:
    await two_versions(here)
    await here.driver.press("left_square_bracket")
    await here.do()
    assert "reply ◂ 2/2 ▸" in here.driver.screen_text


@case("fold")
async def folds_the_message(here: Here) -> None:
    await here.do()
    assert f"▸ 1 line · {REPLY}" in here.driver.screen_text


# --- in a search: "o" is in the question and twice in the reply -----------------------------------------


@case("find_next")
async def goes_to_the_next_find(here: Here) -> None:
    await here.do()
    assert "2 of 3" in here.driver.screen_text


@case("find_previous")
async def goes_to_the_find_before(here: Here) -> None:
    await here.do()
    assert "3 of 3" in here.driver.screen_text


# --- in the list of chats: Foxes, Hens, Moon, and thirty more -------------------------------------------


def chosen(here: Here) -> str:
    return str(here.driver.app.screen.chats.row.title)


@case("chat_up")
async def goes_a_chat_up(here: Here) -> None:
    await here.driver.press("down", "down")
    await here.do()
    assert chosen(here) == "Hens"


@case("chat_down")
async def goes_a_chat_down(here: Here) -> None:
    await here.do()
    assert chosen(here) == "Hens"


@case("chats_page_down")
async def goes_a_page_of_chats_down(here: Here) -> None:
    await here.do()
    assert chosen(here).startswith("Chat ")


@case("chats_page_up")
async def goes_a_page_of_chats_up(here: Here) -> None:
    await here.driver.press("pagedown")
    await here.do()
    assert chosen(here) == "Foxes"


@case("first_chat")
async def goes_to_the_first_chat(here: Here) -> None:
    await here.driver.press("down")
    await here.do()
    assert chosen(here) == "Foxes"


@case("last_chat")
async def goes_to_the_last_chat(here: Here) -> None:
    await here.do()
    assert chosen(here) == "Chat 29"


@case("open_chat")
async def opens_the_chat(here: Here) -> None:
    await here.do()
    await here.driver.until(lambda: here.driver.app.screen is here.driver.chat)
    await here.driver.until(lambda: "about Foxes" in here.driver.screen_text)


@case("close_chats")
async def closes_the_list(here: Here) -> None:
    await here.do()
    await here.driver.until(lambda: here.driver.app.screen is here.driver.chat)


@case("delete_chat")
async def deletes_the_chat(here: Here) -> None:
    await here.do()
    assert chosen(here) == "Hens"
    await here.driver.press("ctrl+z")
    await here.driver.until(lambda: "is back" in here.driver.screen_text)


@case("rename_chat")
async def renames_the_chat(here: Here) -> None:
    await here.do()
    await here.driver.until(lambda: isinstance(here.driver.app.screen, TextDialog))
    await here.driver.settle()
    await here.driver.press("s", "enter")
    await here.driver.until(lambda: not isinstance(here.driver.app.screen, TextDialog))
    await here.driver.until(lambda: chosen(here) == "Foxess")


@case("restore_chat")
async def brings_the_chat_back(here: Here) -> None:
    await here.driver.press("delete")
    await here.do()
    await here.driver.until(lambda: "Foxes' is back" in here.driver.screen_text.replace("Foxess", "Foxes"))


@case("export_chat")
async def exports_the_chat(here: Here) -> None:
    await here.do()
    await here.driver.until(lambda: any(here.folder.glob("foxes*.md")))


# --- on the start screen: a folder with two models and a file -------------------------------------------


@case("open_model")
async def opens_a_model(here: Here) -> None:
    await here.driver.path(f"{here.folder}/llama-2-7b")
    await here.do()
    await here.driver.until(lambda: bool(here.driver.chosen))
    assert here.driver.chosen[-1]["checkpoint"].rstrip("/") == f"{here.folder}/llama-2-7b"


@case("complete_path")
async def completes_the_path(here: Here) -> None:
    await here.driver.path(f"{here.folder}/lla")
    await here.do()
    assert here.driver.start.path.value == f"{here.folder}/llama-"


def line(here: Here) -> int:
    return int(here.driver.start.rows.highlighted)


@case("start_up")
async def goes_a_line_up(here: Here) -> None:
    await here.driver.press("down", "down")
    await here.do()
    assert line(here) == 1


@case("start_down")
async def goes_a_line_down(here: Here) -> None:
    await here.do()
    assert line(here) == 1


@case("start_page_down")
async def goes_a_page_down(here: Here) -> None:
    await here.do()
    assert line(here) == len(here.driver.titles) - 1


@case("start_page_up")
async def goes_a_page_up(here: Here) -> None:
    await here.driver.press("pagedown")
    await here.do()
    assert line(here) == 0


@case("leave_start")
async def clears_the_path_then_leaves(here: Here) -> None:
    await here.driver.path(f"{here.folder}/lla")
    await here.do()
    assert here.driver.start.path.value == ""
    await here.do()
    await here.driver.until(lambda: bool(here.left))


# --- on the memory map: the cursor is at wk of layer 2 --------------------------------------------------


def cursor(here: Here) -> list[str]:
    return sorted(cell.name for cell in here.driver.app.screen.cells.selected)


def moves(id: str, *names: str) -> None:
    """An action after which these weights are named."""

    @case(id)
    async def moves_the_cursor(here: Here) -> None:
        await here.do()
        assert cursor(here) == list(names)


moves("map_left", "layers.1.wk")
moves("map_right", "layers.3.wk")
moves("map_up", "layers.2.wq")
moves("map_down", "layers.2.wv")
moves("map_first", "layers.0.wk")
moves("map_last", "layers.31.wk")
moves("range_left", "layers.1.wk", "layers.2.wk")
moves("range_right", "layers.2.wk", "layers.3.wk")
moves("range_up", "layers.2.wk", "layers.2.wq")
moves("range_down", "layers.2.wk", "layers.2.wv")
moves("map_row", *sorted(f"layers.{layer}.wk" for layer in range(32)))


@case("map_keep")
async def keeps(here: Here) -> None:
    await here.driver.press("s")
    await here.do()
    assert not here.session.placement.pending


@case("map_stream")
async def streams(here: Here) -> None:
    await here.do()
    assert here.session.placement.pending


@case("map_cpu")
async def computes_on_the_cpu(here: Here) -> None:
    await here.do()
    assert here.session.placement.pending


@case("map_undo")
async def takes_a_change_back(here: Here) -> None:
    await here.driver.press("s")
    assert here.session.placement.pending
    await here.do()
    assert not here.session.placement.pending


@case("map_apply")
async def applies(here: Here) -> None:
    await here.driver.press("s")
    applied = len(here.driver.sent(Apply))
    await here.do()
    assert len(here.driver.sent(Apply)) == applied + 1
    await here.driver.advance(2)


@case("close_map")
async def closes_the_map(here: Here) -> None:
    await here.do()
    await here.driver.until(lambda: here.driver.app.screen is here.driver.chat)
