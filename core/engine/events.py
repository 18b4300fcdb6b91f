"""What comes out of the engine: frozen events, free of torch. What goes in: `core.engine.commands`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from core.weights.plan import Plan

if TYPE_CHECKING:
    from core.engine.conversation import Message


class Reason(StrEnum):
    """Why a reply ended; one set of words for JSON, database and footer."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Loading:
    """Progress of a load. `stage` is a short phrase; bytes are of the weights in the source.

    The rate is that of the last seconds, in bytes per second; None until there is one.
    """

    stage: str
    done_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_s: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded, in the words the interface shows.

    `dtype` is the float type, `format` what most weights are multiplied as: their own, or "int8-mixed".
    `kernels` says for formats what multiplies, on the card where there is one. `max_context` is the model's
    limit, `kv_bytes` what the cache takes for each token of context, and `tokenizer` the fingerprint of its
    vocabulary.
    """

    name: str
    parameters: int
    weight_bytes: int
    dtype: str
    device: str
    chat_format: str
    context: int
    layers: int
    load_s: float
    format: str = ""
    kernels: tuple[tuple[str, str], ...] = ()
    max_context: int = 0
    kv_bytes: int = 0
    tokenizer: str = ""

    @property
    def weights(self) -> str:
        """The format of the weights, or their float type."""
        return self.format or self.dtype


@dataclass(frozen=True, slots=True)
class Ready:
    """The model answers from now on."""

    model: ModelInfo


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The model is out of memory; see Unload. Comes again where loading it anew did not succeed."""


@dataclass(frozen=True, slots=True)
class CacheRead:
    """What the KV cache holds: `tokens` of `capacity`, `token_bytes` for each.

    `anew` is how many tokens the next message runs beside its own, None where no message can follow or each
    one is completed alone.
    """

    tokens: int
    capacity: int
    token_bytes: int
    anew: int | None


@dataclass(frozen=True, slots=True)
class Placing:
    """Weights are on their way to other places: how far, in bytes that have to move."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Every weight is where `plan` says. Comes before Ready, and whenever it changes.

    `ram_unpinned` are bytes to be streamed that the system did not let us pin, which halves their speed or
    worse; `reason` says why the plan changed if the user did not ask for it. `pageable` is what is streamed
    from memory that is not pinned: units, and "output" and "embeddings".
    """

    plan: Plan
    ram_unpinned: int = 0
    reason: str | None = None
    pageable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Opened:
    """Another conversation is in place, with its messages and its head; see OpenChat."""

    chat: int | None
    head: int | None
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """The head of the conversation is this message now; see Rewind."""

    head: int | None


@dataclass(frozen=True, slots=True)
class Begun:
    """A run has its place in the conversation: a message and the reply to come.

    `parent_id` is what the message stands behind. `start` is the message that the context begins with, None
    for the first one. Where `continues`, the reply was there before and goes on.
    """

    run: int
    user_id: int
    reply_id: int
    parent_id: int | None
    text: str
    start: int | None = None
    continues: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """The context was too small: the oldest exchanges have left it, and the rest is run anew.

    `start` is the message that the context begins with from now on, `exchanges` how many more of them stand
    before it, `tokens` what has to be run, and `seconds` how long that may take, None where nothing was
    measured yet.
    """

    start: int
    exchanges: int
    tokens: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Prefill:
    """Prompt tokens of this run that have been run by now; `cached` of `total` were in the cache before.

    Those of the running pass count by the units they have passed.
    """

    run: int
    done: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of a reply (whole UTF-8, sanitised) with the ids and surprises (bits) behind it.

    At most 20 a second; `text` may be empty while an unfinished character is held back.
    """

    run: int
    text: str
    ids: tuple[int, ...]
    surprises: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of one reply; what is undefined is None, never 0. Times in seconds, sizes in bytes."""

    load_s: float | None = None
    ttft_s: float | None = None
    prefill_tok_s: float | None = None
    decode_tok_s: float | None = None
    streamed_bytes_per_token: int | None = None
    peak_vram_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_anon_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished reply: the object that `--json` prints and the database keeps.

    Of a reply that went on after it was cut off it is the whole, and `prompt_tokens` what stands before it;
    `seed`, `cached_tokens` and `stats` are those of the last run.
    """

    text: str
    tokens: tuple[int, ...]
    surprise: tuple[float, ...]
    finish_reason: Reason
    seed: int
    mu: float | None
    prompt_tokens: int
    cached_tokens: int
    stats: Stats

    def as_json(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, in the contract's order."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Done:
    """The run is over. The ids name its messages in the conversation, for Rewind.

    `parent_id` is what the user message stands behind (None at the start) and `head` where the conversation
    is now. Where nothing was said, `reply_id` is None, and the head is where it was before the run. After an
    error `reply` may be None and `error` says why. `cut` is what the next message will set off, where it
    will not fit any more.
    """

    run: int
    reason: Reason
    stats: Stats
    reply: Reply | None = None
    user_id: int | None = None
    reply_id: int | None = None
    parent_id: int | None = None
    head: int | None = None
    error: str | None = None
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Scoring:
    """How far a Score is, in tokens; those of the running call count by the units they have passed.

    At most 4 a second. `perplexity` is that of the scores so far, None before the first.
    """

    run: int
    done: int
    total: int
    tok_s: float
    perplexity: float | None


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp(mean negative log-likelihood) of `tokens` scored tokens: the object that `--json` prints.

    The first token of a window has no score and the last one is not run, so as many are run as scored.
    """

    perplexity: float
    tokens: int
    windows: int
    tok_s: float

    def as_json(self) -> dict[str, Any]:
        """Plain numbers, in the contract's order."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Scored:
    """A Score is over. `result` is None after a stop, and after an error, which `error` tells."""

    run: int
    result: Perplexity | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the engine itself counts, by kind. Bytes, and bytes per second; `copied` and `computed` are
    the units that were copied and computed last.

    `vram` and `ram` are disjoint kinds in a fixed order: "context", "resident", "slots", "kv",
    "workspace"; "pinned", "pageable", "cpu" (computed from there).
    """

    simulated: bool
    vram_budget: int | None
    vram: tuple[tuple[str, int], ...]
    ram: tuple[tuple[str, int], ...]
    to_gpu: float | None
    from_gpu: float | None
    from_disk: float | None
    link: float | None  # the most the bus was measured to carry
    copied: str | None
    computed: str | None


@dataclass(frozen=True, slots=True)
class InSlot:
    """The unit that is in a slot, or on its way there: `moved` of its bytes have arrived so far.

    Copies are made one after the other: of those that have not arrived, one is "copying" and the others wait.
    """

    unit: str
    moved: int
    nbytes: int
    state: Literal["waiting", "copying", "there"]


@dataclass(frozen=True, slots=True)
class Activity:
    """What the engine does at this moment, by the counters that it keeps anyway; see Watch.

    `computing` is a unit; None while it waits for bytes, and between passes. `slots` are in the order of the
    plan's rings, None before the first copy. `placing` is a weight on its way to another place.
    """

    computing: str | None = None
    slots: tuple[InSlot | None, ...] = ()
    placing: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading of the meters; None where nothing can be read. Bytes, and bytes per second.

    The fields of the card and its bus are the device's own; `engine` is what we count ourselves, which is
    exact. On a simulated device `vram_total` and `vram_used` are those of the simulated card.
    """

    ram_total: int | None = None
    ram_used: int | None = None
    process_anon: int | None = None
    process_file: int | None = None
    gpu_name: str | None = None
    vram_total: int | None = None
    vram_used: int | None = None
    process_vram: int | None = None
    pcie_to_gpu: float | None = None
    pcie_from_gpu: float | None = None
    pcie_link: float | None = None
    engine: Traffic | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know that is no error, such as a reduced context."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class Saved:
    """The conversation is saved under this number, and with this title, from now on.

    `before` is the number that it had, where the history has lost that.
    """

    chat: int
    title: str
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong outside a reply. After a fatal failure nothing can be submitted.

    `user` tells a user's mistake (exit status 2) from a fault of ours (1).
    """

    text: str
    fatal: bool = False
    user: bool = True


Event = (
    Loading
    | Ready
    | Unloaded
    | CacheRead
    | Placing
    | Placed
    | Opened
    | Moved
    | Begun
    | Cut
    | Prefill
    | Delta
    | Done
    | Scoring
    | Scored
    | Snapshot
    | Activity
    | Notice
    | Saved
    | Failed
)
