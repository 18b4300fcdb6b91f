"""Everything a user can do, in one table: it makes the key bindings, the key bar, the palette, the slash
commands, the help page and the README's table.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from textual.binding import Binding, BindingType

from core.errors import UserError
from core.options import Param
from tui.settings import LIVE, PLACEMENT, find_param

Scope = Literal["app", "chat", "prompt", "settings", "chats", "start", "transcript", "find", "map"]


class Need(StrEnum):
    """What must exist before an action makes sense; the value tells the user that it does not."""

    RUN = "nothing is running"
    EXCHANGE = "nothing has been sent yet"
    REPLY = "there is no reply yet"
    PENDING = "no change of the placement is pending"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    `id` is public (configuration maps keys to ids) and names the method `action_<id>` that does it.
    `key` lists keys with commas; `slash` is the slash command with its arguments; `bar` the word in
    the key bar; `scope` where the keys act; `enabled` what the action needs.
    """

    id: str
    title: str
    help: str
    key: str = ""
    slash: str = ""
    scope: Scope = "chat"
    enabled: Need | None = None
    bar: str = ""

    @property
    def command(self) -> str:
        """The slash command's name, without slash and arguments; empty where there is none."""
        return self.slash.partition(" ")[0].removeprefix("/")

    @property
    def takes_argument(self) -> bool:
        """True where the slash command has something behind its name."""
        return " " in self.slash

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, each by itself."""
        return tuple(self.key.split(",")) if self.key else ()


ACTIONS: tuple[Action, ...] = (
    Action("send", "Send", "Sends the message. While a reply runs or the model loads, it waits its turn.",
           "enter", scope="prompt"),
    Action("newline", "New line", "Starts a new line. Pasted line ends do the same.",
           "ctrl+j,shift+enter,alt+enter", scope="prompt"),
    Action("complete", "Complete", "Completes the command that is being typed.", "tab", scope="prompt"),
    Action("history_back", "Earlier message", "At the first line of the prompt: the message sent before.",
           "up", scope="prompt"),
    Action("history_on", "Later message", "At the last line of the prompt: the message sent after.",
           "down", scope="prompt"),
    Action("back", "Back, or stop", "The first that applies: closes what is open, clears a selection, "
           "returns to the prompt, stops the reply.", "escape"),
    Action("interrupt", "Copy, stop or quit", "Copies and clears a selection; without one stops the reply; "
           "when idle, twice within a second quits.", "ctrl+c"),
    Action("stop", "Stop the reply", "Ends the running reply; what it said so far stays.",
           slash="/stop", enabled=Need.RUN),
    Action("settings", "Settings", "Goes to the settings, and back to the prompt.",
           "ctrl+t", "/settings", bar="settings"),
    Action("new_chat", "New chat", "Starts an empty conversation with the same settings.",
           "ctrl+n", "/new", bar="new chat"),
    Action("chats", "Chats", "Lists the saved chats: to be found by their words, opened, renamed, deleted.",
           "ctrl+o", "/chats WORDS", bar="chats"),
    Action("rename", "Rename", "Gives this chat another title; alone it opens the present one for editing.",
           slash="/rename TITLE"),
    Action("export", "Export", "Writes this chat to a file: as JSON if its name ends in .json, else as "
           "Markdown; alone it makes a name of the title.", slash="/export FILE"),
    Action("regenerate", "Regenerate", "Answers the last message again, beside the reply that is there.",
           "ctrl+r", "/regenerate", enabled=Need.EXCHANGE),
    Action("continue", "Continue", "Goes on with the last reply, if it was stopped or reached its longest. "
           "An empty message does the same.", slash="/continue", enabled=Need.EXCHANGE),
    Action("previous", "Earlier version", "Where a message or reply has several versions, the one before; "
           "the last such place counts.", "alt+left", "/previous", enabled=Need.EXCHANGE),
    Action("next", "Later version", "The version after.", "alt+right", "/next", enabled=Need.EXCHANGE),
    Action("edit", "Edit the last message", "Puts the last message back into the prompt; sending it stands "
           "beside the old one.", "f7", "/edit", enabled=Need.EXCHANGE),
    Action("erase", "Erase the last exchange", "Takes the last message and its reply off the end.",
           slash="/erase", enabled=Need.EXCHANGE),
    Action("copy", "Copy the last reply", "Puts the last reply on the clipboard, through the terminal.",
           "f6", "/copy", enabled=Need.REPLY, bar="copy reply"),
    Action("editor", "External editor", "Opens the prompt in $VISUAL or $EDITOR.", "ctrl+g", "/editor"),
    Action("pager", "Transcript in the pager", "Shows the conversation in $PAGER.",
           "f2", "/transcript", enabled=Need.EXCHANGE),
    Action("messages", "Walk over the messages", "Goes to the messages, from the last in view on; Esc goes "
           "back to the prompt.", "shift+tab,alt+up", "/messages", bar="messages"),
    Action("find", "Find in the chat", "Finds words in this chat, of either case unless there is a capital "
           "among them; Esc goes back to where you were.", "ctrl+f", "/find WORDS", enabled=Need.EXCHANGE,
           bar="find"),
    Action("page_up", "Scroll up", "Scrolls the conversation up by a page.", "pageup"),
    Action("page_down", "Scroll down", "Scrolls the conversation down by a page.", "pagedown"),
    Action("follow", "Go to the end", "Shows the newest text and follows it. From the end of the prompt, End "
           "does the same.", "ctrl+end", "/end"),
    Action("set", "Change a setting", "Sets a parameter; without a value shows it, alone lists all. "
           "/NAME VALUE is short for it: /temperature 0.7.", slash="/set KEY VALUE"),
    Action("system", "System prompt", "Sets the instructions that stand before the conversation; alone opens "
           "them for editing.", slash="/system TEXT"),
    Action("apply", "Apply the placement", "Moves the weights to where the settings want them, also in the "
           "middle of a reply.", "f8", "/apply", enabled=Need.PENDING, bar="apply"),
    Action("keep", "Keep on the GPU", "Names the weights that stay on the GPU, such as w1,w2 or layers.0-9; "
           "the rest is streamed. auto leaves it to the planner, none streams all; F8 applies it.",
           slash="/keep NAMES"),
    Action("preset", "Preset", "Takes the next preset of sampling settings, or the one that is named.",
           "f9", "/preset NAME"),
    Action("mirostat", "Mirostat", "Chooses the version, 0 for off, and where they are given the surprise it "
           "aims at in bits and its learning rate.", slash="/mirostat VERSION TAU ETA"),
    Action("save_preset", "Save as a preset", "Keeps the present sampling settings as a preset of that name, "
           "in config.toml.", slash="/save_preset NAME"),
    Action("cache", "KV cache", "Says what the KV cache holds, and what the next message would run anew.",
           slash="/cache"),
    Action("progress", "Progress", "Says how far the load or the reply is.", slash="/progress"),
    Action("unload", "Unload the model", "Gives the model's memory back. The conversation stays, and the "
           "next message loads the model again.", slash="/unload"),
    Action("reset", "Reset", "Sets every parameter to its default and starts a new chat.", slash="/reset"),
    Action("debug", "Figures under replies", "Adds time, mean surprise and perplexity to the line under "
           "replies from now on, or leaves them out again.", slash="/debug"),
    Action("gauges", "Gauges", "Shows the gauges on a full page: minutes of history, the figures of the last "
           "replies, the plan and the rates it rests on; again, and it is gone.",
           "f3", "/gauges", scope="app"),
    Action("map", "Memory map", "Shows where every weight lies, what is copied and computed at this moment, "
           "and what moving weights would give; again, and it is gone.",
           "f4", "/map", scope="app", bar="map"),
    Action("log", "Log", "Shows the end of the log: what went wrong, and what libraries have printed; again, "
           "and it is gone.", "f12", "/log", scope="app"),
    Action("command_palette", "Commands", "Finds a command by typing some of it.",
           "ctrl+p", scope="app", bar="commands"),
    Action("help", "Help", "Shows keys, commands and settings.", "f1", "/help", scope="app", bar="help"),
    Action("change_theme", "Theme", "Chooses the colours: those of that name, else by a list.",
           slash="/theme NAME", scope="app"),
    Action("quit", "Quit", "Leaves; a running reply is stopped.", "ctrl+q", "/quit", scope="app", bar="quit"),
    Action("field_up", "Setting above", "Moves to the setting above.", "up", scope="settings", bar="field"),
    Action("field_down", "Setting below", "Moves to the setting below.", "down", scope="settings"),
    Action("turn", "Toggle", "Keeps the weights under the cursor on the GPU, or streams them.",
           "space", scope="settings", bar="toggle"),
    Action("less", "Less", "One step down, or one toggle to the left.", "left", scope="settings", bar="step"),
    Action("more", "More", "One step up, or one toggle to the right.", "right", scope="settings"),
    Action("much_less", "Much less", "Ten steps down.", "shift+left", scope="settings"),
    Action("much_more", "Much more", "Ten steps up.", "shift+right", scope="settings"),
    Action("type", "Type a value", "Takes a value from the keyboard; typing a digit begins it too.",
           "enter", scope="settings", bar="type"),
    Action("default", "Default", "Sets the default. At the placement: forgets what is pending.",
           "backspace,delete", scope="settings", bar="default"),
    Action("message_up", "Message above", "Goes to the message above.", "up", scope="transcript",
           bar="message"),
    Action("message_down", "Message below", "Goes to the message below; from the last one to the end, which "
           "is followed.", "down", scope="transcript"),
    Action("copy_message", "Copy", "Copies the message, or the block of code that is marked.",
           "c", scope="transcript", bar="copy"),
    Action("code_block", "Block of code", "Goes to the next block of code in the message, to copy it alone.",
           "f", scope="transcript", bar="code"),
    Action("edit_message", "Edit", "Puts the message into the prompt, or the one that was replied to; once "
           "sent it stands beside the old one, and what followed that leaves the screen.",
           "e", scope="transcript", bar="edit"),
    Action("regenerate_message", "Regenerate", "Answers the message again, beside the reply that is there.",
           "r", scope="transcript", bar="answer again"),
    Action("sibling_before", "Earlier version", "The version of this message before.",
           "left_square_bracket", scope="transcript", bar="version"),
    Action("sibling_after", "Later version", "The version of this message after.",
           "right_square_bracket", scope="transcript"),
    Action("fold", "Fold", "Folds the message to one line and shows it again, with its reasoning if it has "
           "any.", "space", scope="transcript", bar="fold"),
    Action("find_next", "Next", "Goes to the next place.", "enter,down", scope="find", bar="next"),
    Action("find_previous", "Previous", "Goes to the place before.", "up", scope="find", bar="previous"),
    Action("chat_up", "Chat above", "Moves to the chat above.", "up", scope="chats"),
    Action("chat_down", "Chat below", "Moves to the chat below.", "down", scope="chats"),
    Action("chats_page_up", "Page up", "Moves up by a page.", "pageup", scope="chats"),
    Action("chats_page_down", "Page down", "Moves down by a page.", "pagedown", scope="chats"),
    Action("first_chat", "First chat", "Moves to the newest chat.", "home", scope="chats"),
    Action("last_chat", "Last chat", "Moves to the end of the list, which goes on from there.",
           "end", scope="chats"),
    Action("open_chat", "Open", "Opens the chat under the cursor.", "enter", scope="chats", bar="open"),
    Action("close_chats", "Close", "Clears what is searched for; the second time, back to the chat.",
           "escape", scope="chats", bar="close"),
    Action("delete_chat", "Delete", "Takes the chat under the cursor off the list.",
           "delete", scope="chats", bar="delete"),
    Action("rename_chat", "Rename", "Gives the chat under the cursor another title.",
           "f2", scope="chats", bar="rename"),
    Action("restore_chat", "Undo delete", "Brings back the chat that was deleted last, then the one before.",
           "ctrl+z", scope="chats", bar="undo"),
    Action("export_chat", "Export", "Writes the chat under the cursor to a Markdown file in the working "
           "folder.", "ctrl+s", scope="chats", bar="export"),
    Action("open_model", "Open", "Opens the model under the cursor, or the path that is typed; goes into a "
           "folder that is none.", "enter", scope="start", bar="open"),
    Action("complete_path", "Complete", "Completes the path as far as there is no choice, then with what is "
           "under the cursor.", "tab", scope="start", bar="complete"),
    Action("start_up", "Above", "Moves to the line above.", "up", scope="start"),
    Action("start_down", "Below", "Moves to the line below.", "down", scope="start"),
    Action("start_page_up", "Page up", "Moves up by a page.", "pageup", scope="start"),
    Action("start_page_down", "Page down", "Moves down by a page.", "pagedown", scope="start"),
    Action("leave_start", "Back, or leave", "Stops what is being fetched; clears the path; else leaves.",
           "escape", scope="start", bar="back"),
    Action("map_left", "Layer before", "Moves to the layer before.", "left", scope="map"),
    Action("map_right", "Layer after", "Moves to the layer after.", "right", scope="map"),
    Action("map_up", "Row above", "Moves to the kind of matrix above.", "up", scope="map"),
    Action("map_down", "Row below", "Moves to the kind of matrix below.", "down", scope="map"),
    Action("map_first", "First layer", "Moves to the first layer.", "home", scope="map"),
    Action("map_last", "Last layer", "Moves to the last layer.", "end", scope="map"),
    Action("range_left", "Range to the left", "Names a range: as far as the layer before.",
           "shift+left", scope="map"),
    Action("range_right", "Range to the right", "Names a range: as far as the layer after.",
           "shift+right", scope="map", bar="range"),
    Action("range_up", "Range upwards", "Names a range: the row above too.", "shift+up", scope="map"),
    Action("range_down", "Range downwards", "Names a range: the row below too.", "shift+down", scope="map"),
    Action("map_row", "Row", "Names all layers of the row.", "r", scope="map", bar="row"),
    Action("map_keep", "Keep on the GPU", "Wants what the cursor names on the GPU.",
           "g", scope="map", bar="keep"),
    Action("map_stream", "Stream", "Wants it streamed.", "s", scope="map", bar="stream"),
    Action("map_cpu", "On the CPU", "Wants it computed on the CPU where it lies.",
           "c", scope="map", bar="CPU"),
    Action("map_undo", "Undo", "Takes back the last change that is not applied yet, then the one before.",
           "u", scope="map", bar="undo"),
    Action("map_apply", "Apply", "Moves the weights to where they are wanted, also in the middle of a reply.",
           "f8", scope="map", bar="apply"),
    Action("close_map", "Back", "Back to the chat; what is pending stays so.",
           "escape", scope="map", bar="back"),
)  # fmt: skip

BY_ID: dict[str, Action] = {action.id: action for action in ACTIONS}

KEY_NAMES = {
    "escape": "Esc",
    "enter": "Enter",
    "up": "Up",
    "down": "Down",
    "left": "Left",
    "right": "Right",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
    "backspace": "Backspace",
    "space": "Space",
    "delete": "Del",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
}


def key_name(key: str) -> str:
    """A key as the interface writes it: "ctrl+end" -> "ctrl+End", "f6" -> "F6"."""
    *modifiers, last = key.split("+")
    name = KEY_NAMES.get(last) or (last.upper() if last[0] == "f" and last[1:].isdigit() else last)
    return "+".join((*modifiers, name))


def bindings(scope: Scope, *, priority: bool = False) -> list[BindingType]:
    """The bindings of a scope. `priority` puts them before the keys of whatever widget has the focus.

    Each calls `perform` with the action's id, so that needs are checked; the app's have none. An action
    without a key is bound to none that is ever sent: the user's keymap can only move what is bound.
    """
    return [
        Binding(
            action.key or f"no_key_{action.id}",
            action.id if scope == "app" else f"perform('{action.id}')",
            action.title,
            id=action.id,
            show=False,
            priority=priority,
        )
        for action in ACTIONS
        if action.scope == scope
    ]


@dataclass(frozen=True, slots=True)
class Call:
    """A slash command that was typed."""

    action: Action
    argument: str


@dataclass(frozen=True, slots=True)
class Assign:
    """`/set KEY VALUE` in either spelling; without a value it asks for the present one."""

    param: Param
    value: str


def read_line(text: str) -> str | Call | Assign:
    """What a line from the prompt means: a message to send, or something to do.

    A leading slash makes a command, two a message with one. Raises UserError for a command that is
    unknown or has too much behind it; it is never sent to the model.
    """
    if not text.startswith("/"):
        return text
    if text.startswith("//"):
        return text[1:]
    name, _, argument = text[1:].partition(" ")
    name, argument = name.strip().lower(), argument.strip()
    for action in ACTIONS:
        if name and name == action.command:
            if argument and not action.takes_argument:
                raise UserError(f"/{name} takes nothing behind it; // sends a slash")
            return Call(action, argument)
    param = find_param(name)
    if param is not None:
        return Assign(param, argument)
    raise UserError(_unknown(name))


def read_setting(argument: str) -> Assign:
    """The parameter and value of `/set KEY VALUE`. Raises UserError for an unknown key."""
    name, _, value = argument.partition(" ")
    param = find_param(name)
    if param is None:
        close = difflib.get_close_matches(name.lower(), [param.key for param in LIVE + PLACEMENT], 1)
        raise UserError(f"/set {name}: unknown setting; {_advice(close, '/set')}")
    return Assign(param, value.strip())


def _unknown(name: str) -> str:
    names = [action.command for action in ACTIONS if action.slash] + [param.key for param in LIVE + PLACEMENT]
    close = [f"/{match}" for match in difflib.get_close_matches(name, names, 1)]
    return f"/{name}: unknown command, not sent; {_advice(close, '/help')}, and // sends a slash"


def _advice(close: list[str], listing: str) -> str:
    return f"did you mean {close[0]}?" if close else f"{listing} lists them"
