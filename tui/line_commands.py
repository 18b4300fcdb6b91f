"""What slash commands do where nothing is drawn: those of the actions' table that make sense there."""

from __future__ import annotations

import re

from core.engine.events import Done
from core.errors import UserError
from core.options import BY_KEY
from core.presets import PURPOSES
from tui.chat_session import ChatSession, Replacement
from tui.commands import ACTIONS, Action, Assign, Call, read_line, read_setting
from tui.conversation import Exchange
from tui.figures import footer
from tui.needs import met
from tui.setting_words import enter, enter_mirostat, listed, shown
from tui.settings import LIVE


class LineCommands:
    """Does what a line says with `session`. `say` prints a line for the user.

    `waiting`: the engine owes an answer that is no reply. `left`: the user wants to leave.
    """

    def __init__(self, session: ChatSession) -> None:
        self.session = session
        self.waiting = False
        self.left = False
        self._debug = False

    def say(self, text: str) -> None:
        """Print a line."""
        raise NotImplementedError

    def do(self, line: str) -> None:
        """Send a line, or do what it says. Raises UserError where that cannot be."""
        if not line.strip():
            self.session.go_on()
            return
        match read_line(line):
            case Call(action, argument):
                self._perform(action, argument)
            case Assign() as assign:
                self._assign(assign)
            case str(words):
                self.session.send(words)

    def figures(self, exchange: Exchange, done: Done) -> str:
        """The line under a reply, without the arrows that a screen reader would spell out."""
        place = re.sub(r" ?[\u25c2\u25b8] ?", " ", self.session.conversation.place(exchange)).strip()
        return footer(exchange, done, debug=self._debug, place=place)

    def _perform(self, action: Action, argument: str) -> None:
        deed = getattr(self, f"action_{action.id}", None)
        if deed is None:
            raise UserError(f"/{action.command} needs the full screen; /help lists what works here")
        if action.enabled is not None and not met(self.session, action.enabled):
            raise UserError(str(action.enabled))
        if action.takes_argument:
            deed(argument)
        else:
            deed()

    # --- the conversation -------------------------------------------------------------------------

    def action_quit(self) -> None:
        """Leave."""
        self.left = True

    def action_help(self) -> None:
        """The commands that work here, and the settings."""
        for action in ACTIONS:
            if action.slash and hasattr(self, f"action_{action.id}"):
                self.say(f"{action.slash}: {action.help}")
        for param in LIVE:
            if all(param.key != action.command for action in ACTIONS):
                self.say(f"/{param.key} VALUE: {param.help}")

    def action_new_chat(self) -> None:
        """An empty conversation."""
        self.session.new_chat()
        self.say("new chat")

    def action_regenerate(self) -> None:
        """The last message once more."""
        self.session.replace(Replacement(self._last(), again=True))

    def action_continue(self) -> None:
        """More of a reply that was cut off."""
        if not self.session.go_on():
            raise UserError("the last reply has come to its end; send a message, or regenerate it")

    def action_erase(self) -> None:
        """Drop the last exchange."""
        last = self._last()
        self.session.replace(Replacement(last))
        self.say("the last message and its reply are erased")

    def action_previous(self) -> None:
        """The version before."""
        self._walk(-1)

    def action_next(self) -> None:
        """The version after."""
        self._walk(1)

    def _walk(self, steps: int) -> None:
        self.say(self.session.walk(steps))
        last = self.session.conversation.last
        if last is not None:
            self.say(f"{last.user}\n{last.reply}")

    def _last(self) -> Exchange:
        last = self.session.conversation.last
        assert last is not None, "an action that needs an exchange"
        return last

    # --- settings ---------------------------------------------------------------------------------

    def action_set(self, argument: str) -> None:
        """`/set KEY VALUE`; alone it lists all."""
        if argument:
            self._assign(read_setting(argument))
        else:
            self.say("\n".join(listed(self.session.settings)))

    def action_system(self, argument: str) -> None:
        """The system prompt; alone it shows the present one."""
        self._assign(Assign(BY_KEY["system"], argument))

    def action_mirostat(self, argument: str) -> None:
        """Version, tau and eta."""
        self.say(enter_mirostat(self.session.settings, argument))
        self.session.configure()

    def action_preset(self, name: str) -> None:
        """The preset of that name, else the next one."""
        settings = self.session.settings
        name = name or settings.next_preset()
        changes = settings.choose(name)
        self.session.configure()
        purpose = f" ({PURPOSES[name]})" if name in PURPOSES else ""
        self.say(f"preset {name}{purpose}: {', '.join(changes) or 'nothing is different'}")

    def action_reset(self) -> None:
        """Defaults everywhere, and a new chat."""
        self.session.settings.reset_all()
        self.session.configure()
        self.session.new_chat()
        self.say("all settings are at their defaults; new chat")

    def action_debug(self) -> None:
        """More or fewer figures under replies to come."""
        self._debug = not self._debug
        self.say(f"figures under replies: {'all' if self._debug else 'short'}")

    def _assign(self, assign: Assign) -> None:
        settings, param = self.session.settings, assign.param
        if not assign.value:
            self.say(shown(settings, param))
            return
        self.say(enter(settings, param, assign.value))
        self.session.configure()

    # --- the engine -------------------------------------------------------------------------------

    def action_cache(self) -> None:
        """What the KV cache holds."""
        self._require_model()
        self.session.read_cache()
        self.waiting = True

    def action_progress(self) -> None:
        """What is going on."""
        self.say(self.session.state())

    def action_unload(self) -> None:
        """Give the model's memory back."""
        self._require_model()
        self.session.unload()
        self.waiting = True

    def _require_model(self) -> None:
        if self.session.model is None:
            raise UserError("the model is unloaded; the next message loads it again")
