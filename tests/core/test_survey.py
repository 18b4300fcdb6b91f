"""What the machine gives, with a card, without one, and simulated."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from core import monitor
from core.errors import UserError
from core.model.shapes import SHAPES
from core.options import LoadOptions
from core.weights import survey as surveying
from core.weights.plan import Budget, Rate
from core.weights.rows import core_flops, max_rows
from core.weights.survey import device_of, free_ram, known_rates, needs_asked, survey

CARD = 24 * 10**9


def options(**given: Any) -> LoadOptions:
    return LoadOptions("", **given)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 24 GB of which 4 are taken, and a torch that could use it."""
    gpu = SimpleNamespace(name="A card", read=lambda: {"vram_total": CARD, "vram_used": 4 * 10**9})
    monkeypatch.setattr(monitor, "open_gpu", lambda: gpu)
    monkeypatch.setattr(surveying.metadata, "version", lambda name: "2.11.0+cu130")


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "open_gpu", lambda: None)


@pytest.mark.usefixtures("card")
def test_a_card_gives_what_is_free_or_what_was_said() -> None:
    for name in ("auto", "cuda", "cuda:0"):
        budget = survey(options(device=name, ram=10**10))
        assert budget == Budget("cuda:0", 20 * 10**9, 10**10, 500_000_000, 100_000_000, CARD)
    assert survey(options(vram=6 * 10**9)).vram == 6 * 10**9
    assert survey(options(vram=CARD)).vram == CARD
    with pytest.raises(UserError, match=r"--vram 24\.1 GB: the card has 24 GB; give that or less"):
        survey(options(vram=24_100_000_000))
    assert survey(options(device="cpu", ram=7)) == Budget("cpu", None, 7)
    assert known_rates(survey(options()), "float16", options()).link == Rate(12)


@pytest.mark.usefixtures("card")
def test_a_torch_without_cuda_uses_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveying.metadata, "version", lambda name: "2.11.0+cpu")
    assert device_of("auto") == "cpu"


@pytest.mark.usefixtures("card")
def test_a_card_whose_memory_is_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="A card", read=lambda: {"vram_total": None, "vram_used": None})
    monkeypatch.setattr(monitor, "open_gpu", lambda: gpu)
    with pytest.raises(UserError, match="the memory of A card cannot be read"):
        survey(options(device="cuda"))


def test_later_cards_are_the_visible_ones(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nvml:
        NVMLError = RuntimeError

        @staticmethod
        def nvmlDeviceGetHandleByIndex(index: int) -> int:
            if index > 3:
                raise RuntimeError
            return index

        @staticmethod
        def nvmlDeviceGetHandleByUUID(name: str) -> int:
            return 9

        @staticmethod
        def nvmlDeviceGetName(handle: int) -> bytes:
            return b"Card %d" % handle

        @staticmethod
        def nvmlDeviceGetMemoryInfo(handle: int) -> Any:
            return SimpleNamespace(total=handle * 10**9, used=10**8)

    monkeypatch.setitem(sys.modules, "pynvml", Nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert survey(options(device="cuda:2")).card == 2 * 10**9
    assert survey(options(device="cuda:2")).vram == 1_900_000_000
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,GPU-abc")
    assert survey(options(device="cuda:1")).card == 3 * 10**9
    assert survey(options(device="cuda:2")).card == 9 * 10**9
    for device in ("cuda:3", "cuda:7"):
        with pytest.raises(
            UserError, match=rf"--device {device}: there is no such card here; use --device cuda:0"
        ):
            survey(options(device=device))


@pytest.mark.usefixtures("no_card")
def test_without_a_card_there_is_the_cpu() -> None:
    assert survey(options(ram=10**9)) == Budget("cpu", None, 10**9)
    with pytest.raises(UserError, match="--device cuda:0: no NVIDIA card can be seen here"):
        survey(options(device="cuda"))
    flags: dict[str, dict[str, Any]] = {
        "--offload": {"offload": True},
        "--offload-exclusion": {"offload": True, "keep": ("w1",)},
        "--cpu-layers": {"cpu_layers": ("w1",)},
        "--vram": {"vram": 10**9},
    }
    for flag, given in flags.items():
        for device in ("auto", "cpu"):
            with pytest.raises(UserError, match=rf"^{flag} needs a device .* --device sim") as refused:
                survey(options(device=device, **given))
            assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("no_card")
def test_the_simulated_card_is_as_large_as_told() -> None:
    given = options(device="sim", sim_vram=3 * 10**9, sim_link=2.0, ram=10**10)
    assert survey(given) == Budget("sim", 3 * 10**9, 10**10, 0, 0, 3 * 10**9)
    assert survey(options(device="sim", vram=10**9)).vram == 10**9
    with pytest.raises(
        UserError, match=r"--vram 9 GB: the simulated card \(--sim-vram\) has 8 GB; give that"
    ):
        survey(options(device="sim", vram=9 * 10**9))
    rates = known_rates(survey(given), "float32", given)
    assert (rates.link, rates.gpu) == (Rate(2.0), Rate(15))


@pytest.mark.alone
def test_ram_is_what_is_free_less_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()
    assert free_ram() == pytest.approx(memory.available - memory.total / 20, rel=0.1, abs=5e8)
    with_psutil = free_ram()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert free_ram() == pytest.approx(with_psutil, rel=0.1, abs=5e8)
    monkeypatch.setattr(surveying, "Path", lambda path: SimpleNamespace(read_text=lambda: "nothing"))
    with pytest.raises(UserError, match="give --ram SIZE"):
        free_ram()


def test_the_types_and_the_context_are_those_of_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SHAPES["1b"]
    monkeypatch.setenv("LLAMA_TUI_NATIVE", "0")
    needs = needs_asked(config, "float16", options(), "cpu")
    assert (needs.dtype, needs.kv_type, needs.context) == ("float16", "float32", 2048)
    monkeypatch.delenv("LLAMA_TUI_NATIVE")
    compiled = needs_asked(SHAPES["7b"], "bfloat16", options(), "sim")
    assert (compiled.states, compiled.kv_type) == ("float32", "bfloat16")
    assert needs_asked(SHAPES["7b"], "float16", options(kernels="torch"), "sim").kv_type == "float32"
    for device in ("cpu", "sim", "cuda:0"):
        codes = needs_asked(SHAPES["7b"], "float16", options(kv="int8"), device)
        assert (codes.kv_type, codes.dtype, codes.kv) == ("int8", "float16", 2 * 32 * 32 * 4096 * (128 + 4))
    assert needs_asked(SHAPES["7b"], "float32", options(), "cuda:0").dtype == "float16"
    assert needs_asked(SHAPES["7b"], "float32", options(), "cpu").dtype == "float32"
    assert needs_asked(SHAPES["7b"], "float16", options(dtype="float32", context=99), "cuda:1").context == 99
    assert needs_asked(SHAPES["7b"], "float16", options(), "cuda:0").max_rows == 2048
    with pytest.raises(UserError, match="--context 4096: this model's limit is 2048; give at most that"):
        needs_asked(config, "float16", options(context=4096), "cpu")


def test_rows_keep_the_largest_unit_short() -> None:
    assert max_rows(SHAPES["7b"], "cpu") == max_rows(SHAPES["7b"], "sim") == 8
    assert max_rows(SHAPES["1b"], "cpu", 40e9) == 64
    assert max_rows(SHAPES["7b"], "cpu", 200e9) == 128
    assert max_rows(SHAPES["70b"], "cpu") == 8
    assert max_rows(SHAPES["70b"], "cuda:3") == 2048


def test_rows_are_more_where_narrow_types_are_fast() -> None:
    vnni, bf16 = {"avx512_vnni"}, {"avx512_vnni", "avx512_bf16"}
    assert core_flops("int8", vnni, compiled=True, mixed=True) > core_flops(
        "int8", vnni, compiled=False, mixed=True
    )
    assert core_flops("float16", bf16, compiled=False, mixed=True) == core_flops(
        "bfloat16", bf16, compiled=True, mixed=False
    )
    plain = core_flops("float16", bf16, compiled=True, mixed=False)
    assert (
        plain
        == core_flops("nf4", vnni, compiled=True, mixed=True)
        < core_flops("float32", set(), compiled=True, mixed=True)
    )


def test_all_of_planning_does_without_torch() -> None:
    code = (
        "import sys, core.weights.survey, core.weights.placement, core.weights.rates, core.model.shapes; "
        "print(*sorted({'torch', 'numpy', 'psutil', 'platformdirs'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.split()) == (0, []), result.stderr
