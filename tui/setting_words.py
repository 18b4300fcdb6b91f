"""Settings as they are typed, wherever that is: what each entry changes, in words. No Textual."""

from __future__ import annotations

from core.errors import UserError
from core.options import BY_KEY, Param
from tui.settings import ACTS, LIVE, Settings

MIROSTAT = ("mirostat", "mirostat_tau", "mirostat_eta")
"""What `/mirostat` sets, in order."""


def shown(settings: Settings, param: Param) -> str:
    """The present value: "top-p is 0.90"."""
    return f"{param.label} is {settings.shown(param)}"


def enter(settings: Settings, param: Param, text: str) -> str:
    """Set what `text` spells, and say what that does. Raises UserError naming what is accepted."""
    settings.enter(param, text)
    effect = settings.inert_reason(param) or ACTS[param.acts]
    return f"{param.label} is now {settings.shown(param)}; {effect}"


def enter_mirostat(settings: Settings, argument: str) -> str:
    """`[VERSION] [TAU] [ETA]`: sets as many as there are, or none of them. Raises UserError."""
    words = argument.split()
    if len(words) > len(MIROSTAT):
        raise UserError(f"/mirostat {argument}: give VERSION, TAU and ETA at most, such as /mirostat 2 5 0.1")
    params = [BY_KEY[key] for key in MIROSTAT]
    values = [param.parse(word) for param, word in zip(params, words, strict=False)]
    for param, value in zip(params, values, strict=False):
        settings.set(param, value)
    version, tau, eta = (settings.shown(param) for param in params)
    now = "is now" if words else "is"
    if settings.values["mirostat"] == 0:
        return f"Mirostat {now} off; with it, tau would be {tau} bits and eta {eta}"
    return f"Mirostat {now} {version}, tau {tau} bits, eta {eta}"


def listed(settings: Settings) -> list[str]:
    """Every parameter that acts on a running session, a line each."""
    return [f"{param.key} {settings.shown(param)}" for param in LIVE]
