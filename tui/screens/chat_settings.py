"""The chat screen's settings: what the sidebar, `/set` and its kin do."""

from __future__ import annotations

from collections.abc import Callable

from textual import on

from core.config.write import save_preset
from core.context_sizes import kv_choices
from core.errors import UserError
from core.folders import config_file
from core.options import BY_KEY
from core.presets import Preset
from tui.aside import written
from tui.commands import Assign, read_setting
from tui.placement_words import value_words
from tui.screens.chat_view import ChatView
from tui.screens.text_dialog import TextDialog
from tui.setting_words import enter, enter_mirostat, listed, shown
from tui.settings import PLACEMENT
from tui.widgets.setting_row import SettingRow
from tui.widgets.sidebar_row import SidebarRow


class ChatSettings(ChatView):
    """Changes settings and tells the engine at once."""

    def action_settings(self) -> None:
        """To the settings, or back."""
        if isinstance(self.focused, SidebarRow):
            self._leave_settings()
        else:
            self.sidebar.add_class("-open")
            self.sidebar.enter()

    def _leave_settings(self) -> None:
        self.sidebar.remove_class("-open")
        self.set_focus(self.prompt)

    @on(SidebarRow.Stepped)
    def _stepped(self, message: SidebarRow.Stepped) -> None:
        if isinstance(message.row, SettingRow):
            self.session.settings.step(message.row.param, message.steps)
            self._configured()

    @on(SidebarRow.Cleared)
    def _cleared(self, message: SidebarRow.Cleared) -> None:
        if isinstance(message.row, SettingRow):
            self.session.settings.reset(message.row.param)
            self._configured()

    @on(SidebarRow.Entered)
    def _entered(self, message: SidebarRow.Entered) -> None:
        if isinstance(message.row, SettingRow):
            try:
                self._assign(Assign(message.row.param, message.text))
            except UserError as error:
                self.flash(str(error), "error")

    @on(SidebarRow.Opened)
    def _opened(self) -> None:
        self.action_system("")

    def _assign(self, assign: Assign) -> None:
        """Set a value and say so, or show the present one."""
        settings, param = self.session.settings, assign.param
        model = self.session.model
        if param.key == "context" and model is not None:  # which stays, but here is what to start again with
            choices = kv_choices(model.max_context, model.context, model.kv_bytes)
            self.note(f"KV cache by context: {choices}")
        if not assign.value:
            self.flash(shown(settings, param))
            return
        said = enter(settings, param, assign.value)
        self._configured()
        self.flash(said)

    def _configured(self) -> None:
        self.session.configure()
        self.sidebar.sync()
        self._status_soon.request()

    # --- presets --------------------------------------------------------------------------------

    def action_preset(self, name: str) -> None:
        """Take a preset: the one named, else the next; a running reply has it from its next token on."""
        settings = self.session.settings
        name = name or settings.next_preset()
        changes = settings.choose(name)
        self._configured()
        self.flash(f"preset {name}: {', '.join(changes) or 'nothing is different'}")

    def action_save_preset(self, name: str) -> None:
        """Keep the present settings as a preset."""
        if not name:
            self.prompt.replace_text("/save_preset ")
            self.prompt.focus()
            self.flash("give it a name")
            return
        preset = self.session.settings.keep_as(name)
        self.sidebar.sync()
        self.run_worker(self._save_preset(name, preset))

    async def _save_preset(self, name: str, preset: Preset) -> None:
        path, there = config_file(), list[bool]()
        error = await self.write(lambda: there.append(save_preset(path, name, preset)))
        if error is not None:
            self.note(f"preset {name} holds until you leave, but is not kept: {error}", "warning")
        else:
            self.flash(f"preset {name} is {'replaced' if any(there) else 'saved'} in {path}")

    async def write(self, change: Callable[[], object]) -> UserError | None:
        """Change the configuration, off this thread and after what is being written; why not, if not."""
        async with self._writing:
            return await written(change)

    def action_set(self, argument: str) -> None:
        """`/set KEY VALUE`; alone it lists all."""
        if argument:
            self._assign(read_setting(argument))
            return
        settings = self.session.settings
        lines = listed(settings)
        plan = self.session.placement.plan
        if plan is not None and plan.vram is not None:
            lines += [f"{param.key} {value_words(plan, param.key)}" for param in PLACEMENT]
        self.note("\n".join(lines))

    def action_mirostat(self, argument: str) -> None:
        """`/mirostat VERSION TAU ETA`, as many of them as are given; alone it shows all three."""
        said = enter_mirostat(self.session.settings, argument)
        if argument:
            self._configured()
        self.flash(said)

    def action_system(self, argument: str) -> None:
        """The system prompt: set, or opened for editing."""
        param = BY_KEY["system"]
        if argument:
            self._assign(Assign(param, argument))
            return

        def done(text: str | None) -> None:
            if text is not None:
                self.session.settings.enter(param, text)
                self._configured()

        value = self.session.settings.values["system"]
        title = "System prompt"
        text = "" if value is None else str(value)
        self.app.push_screen(TextDialog(title, param.help, text, empty="empty: the model's own"), done)
