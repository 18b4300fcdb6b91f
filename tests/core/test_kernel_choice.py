"""Which kernel computes: scripted kernels and a scripted clock; and the cache of such choices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from core.weights import kernel_choice
from core.weights.kernel_cache import (
    CLASSES,
    FILE_NAME,
    Size,
    choice_key,
    kernel_words,
    load_choice,
    machine_key,
    save_choice,
)
from core.weights.kernel_choice import choose
from core.weights.kernels import row_class
from core.weights.matrix import Matrix
from tests.core.matrices import all_values

SIZE = (600, 2048)  # large enough to be measured


class Clock:
    """What time it is, which only products change."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(kernel_choice, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(kernel_choice, "_POOL", 10**6)
    return clock


@dataclass
class Scripted:
    """A kernel that takes `seconds` for each class of rows, where that is not None, and errs by a factor."""

    name: str
    clock: Clock
    seconds: tuple[float | None, ...]
    factor: float = 1.0
    widths: tuple[int, ...] | None = None
    asked: set[tuple[str, int, int]] = field(default_factory=set)
    ran: list[int] = field(default_factory=list)
    released: int = -1  # products before that

    def takes(self, format: str, columns: int, rows: int) -> bool:
        self.asked.add((format, columns, rows))
        fits = self.widths is None or columns in self.widths
        return fits and self.seconds[row_class(rows)] is not None

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        seconds = self.seconds[row_class(x.shape[0])]
        assert seconds is not None
        self.clock.now += seconds
        self.ran.append(x.shape[0])
        return (x.double() @ all_values(matrix).T).float() * self.factor

    def release(self) -> None:
        self.released = len(self.ran)


Make = Callable[..., Scripted]


@pytest.fixture
def make(clock: Clock) -> Make:
    def make(name: str, *seconds: float | None, **options: object) -> Scripted:
        return Scripted(name, clock, seconds if len(seconds) == 4 else seconds * 4, **options)  # type: ignore[arg-type]

    return make


class Memory:
    """Known names, and what was asked and kept."""

    def __init__(self, known: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.names = dict(known or {})
        self.asked: list[tuple[str, Size]] = []
        self.kept: list[tuple[str, Size, tuple[str, ...]]] = []

    def known(self, format: str, size: Size) -> tuple[str, ...] | None:
        self.asked.append((format, size))
        return self.names.get(format)

    def keep(self, format: str, size: Size, names: tuple[str, ...]) -> None:
        self.kept.append((format, size, names))


def chosen(
    *kernels: Scripted, sizes: tuple[Size, ...] = (SIZE,), memory: Memory | None = None, forced: str = "auto"
) -> list[str]:
    memory = memory or Memory()
    table = choose({"int8": sizes}, kernels, memory.known, memory.keep, forced=forced)
    return [kernel.name for kernel in table["int8"]]


class TestChoice:
    def test_the_fastest_of_each_class(self, make: Make) -> None:
        kernels = [make("a", 1, 4, 2, 9), make("b", 2, 1, 3, 8), make("c", 3, 5, 1, 7)]
        memory = Memory()
        assert chosen(*kernels, memory=memory) == ["a", "b", "c", "c"]
        assert memory.asked == [("int8", SIZE)]
        assert memory.kept == [("int8", SIZE, ("a", "b", "c", "c"))]
        assert all(kernel.released == len(kernel.ran) for kernel in kernels)
        assert chosen(*reversed(kernels)) == ["a", "b", "c", "c"]

    def test_only_who_takes_a_class_is_tried(self, make: Make) -> None:
        slow, fast = make("slow", 2), make("fast", 1, None, 1, None)
        assert chosen(slow, fast) == ["fast", "slow", "fast", "slow"]
        assert {row_class(rows) for rows in fast.ran} == {0, 2}
        assert {row_class(rows) for rows in slow.ran} == {0, 2}  # alone, there is nothing to measure

    @pytest.mark.parametrize("factor", [1.05, 0.95, float("nan"), float("inf"), 0.0, -1.0])
    @pytest.mark.parametrize("first", [True, False])
    def test_a_wrong_one_is_never_chosen(self, make: Make, factor: float, first: bool) -> None:
        wrong, right = make("wrong", 1, factor=factor), make("right", 5)
        assert chosen(*((wrong, right) if first else (right, wrong))) == ["right"] * 4

    def test_where_all_are_wrong_the_first_computes(self, make: Make) -> None:
        assert chosen(make("a", 2, factor=0.0), make("b", 1, factor=0.0)) == ["a"] * 4

    def test_one_that_rounds_to_eight_bits_is_not_wrong(self, make: Make) -> None:
        assert chosen(make("exact", 2), make("rounded", 1, factor=1.01)) == ["rounded"] * 4

    def test_the_forced_one_wherever_it_can(self, make: Make) -> None:
        kernels = [make("middle", 2), make("forced", 9, 9, None, None), make("fast", 1)]
        assert chosen(*kernels, forced="forced") == ["forced", "forced", "fast", "fast"]
        assert kernels[1].ran == []
        assert chosen(*kernels, forced="another") == ["fast"] * 4

    @pytest.mark.parametrize("name", ["forced", "auto"])
    def test_nothing_is_measured_where_there_is_one_for_each(self, make: Make, name: str) -> None:
        kernels, memory = [make("forced", 9), *([make("fast", 1)] if name == "forced" else [])], Memory()
        assert chosen(*kernels, forced=name, memory=memory) == ["forced"] * 4
        assert kernels[0].ran == []
        assert [names for *_, names in memory.kept] == [("forced",) * 4]  # to be shown

    def test_small_matrices_are_not_measured(self, make: Make) -> None:
        kernels, memory = [make("first", 2, 2, None, 2), make("second", 1)], Memory()
        names = chosen(*kernels, sizes=((400, 2048),), memory=memory)
        assert names == ["first", "first", "second", "first"]
        assert kernels[0].ran == kernels[1].ran == []
        assert [list(names) for *_, names in memory.kept] == [names]
        known = Memory({"int8": ("second", "second", "second", "second")})  # of before: not measured either
        assert chosen(*kernels, sizes=((400, 2048),), memory=known) == names

    def test_the_largest_size_is_measured(self, make: Make) -> None:
        memory = Memory()
        chosen(make("a", 1), make("b", 2), sizes=((900, 2048), (600, 2048), (16, 512)), memory=memory)
        assert [size for _, size, _ in memory.kept] == [(900, 2048)]

    def test_takes_is_asked_for_every_width(self, make: Make) -> None:
        sizes = ((600, 2048), (500, 2048), (100, 1408))
        narrow = make("narrow", 1, widths=(2048,))
        wide = make("wide", 2)
        assert chosen(narrow, wide, sizes=sizes) == ["wide"] * 4
        assert {(columns, row_class(rows)) for _, columns, rows in wide.asked} == set(
            product((2048, 1408), range(4))
        )
        assert chosen(narrow, wide, sizes=sizes[:2]) == ["narrow"] * 4

    def test_known_names_are_taken(self, make: Make) -> None:
        kernels, memory = [make("a", 1), make("b", 2)], Memory({"int8": ("b", "a", "b", "b")})
        assert chosen(*kernels, memory=memory) == ["b", "a", "b", "b"]
        assert memory.kept == kernels[0].ran == kernels[1].ran == []

    @pytest.mark.parametrize("gone", ["gone", "b"])
    def test_names_that_are_not_there_any_more(self, make: Make, gone: str) -> None:
        """`b` is there, but does not take many rows."""
        kernels, memory = [make("a", 2), make("b", 1, 1, 1, None)], Memory({"int8": ("b", "a", "b", gone)})
        assert chosen(*kernels, memory=memory) == ["b", "b", "b", "a"]
        assert [names for *_, names in memory.kept] == [("b", "b", "b", "a")]

    @pytest.mark.parametrize("seconds", [(), (1, 1, None, 1)])
    def test_no_kernel_at_all(self, make: Make, seconds: tuple[float | None, ...]) -> None:
        with pytest.raises(ValueError, match="no kernel for int8"):
            chosen(*([make("some", *seconds)] if seconds else []))

    def test_each_format_has_its_own(self, make: Make) -> None:
        memory = Memory({"int8": ("b",) * 4})
        sizes = {"int8": [SIZE], "float16": [SIZE], "nf4": [(16, 64)]}
        table = choose(sizes, [make("a", 1), make("b", 2)], memory.known, memory.keep)
        names = {format: kernels[0].name for format, kernels in table.items()}
        assert names == {"int8": "b", "float16": "a", "nf4": "a"}
        assert [format for format, *_ in memory.kept] == ["float16", "nf4"]

    def test_the_slow_are_given_up_soon(self, make: Make) -> None:
        fast, slow = make("fast", 0.001), make("slow", 1.0)
        assert chosen(fast, slow) == ["fast"] * 4
        assert len(slow.ran) == 4  # once for each class
        assert len(fast.ran) > 40

    def test_a_slow_first_run_is_forgiven(self, make: Make, clock: Clock) -> None:
        """A library that is loaded then, or memory that is there only afterwards."""
        usual, late = make("usual", 0.004), make("late", 0.002)
        usually = late.product

        def product(matrix: Matrix, x: Tensor) -> Tensor:
            clock.now += 0 if x.shape[0] in late.ran else 0.02
            return usually(matrix, x)

        late.product = product  # type: ignore[method-assign]
        assert chosen(usual, late) == ["late"] * 4


def test_the_pool_is_larger_than_a_cache_and_every_matrix_is_whole() -> None:
    pool = kernel_choice._pool("int4", 1024, 2048)
    assert len(pool) * 1024 * 2048 * 5 // 8 > 0.9 * kernel_choice._POOL
    assert len({matrix.pieces["values"].data_ptr() for matrix in pool}) == len(pool)
    first = all_values(pool[0])
    assert first.std() > 0
    for matrix in (pool[1], pool[-1]):
        assert torch.equal(all_values(matrix), first)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache is, which does not exist yet."""
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


NAMES = ("native", "native", "linear", "bfloat16")


class TestCache:
    def test_there_and_back(self, folder: Path) -> None:
        key, other = choice_key("int8", (5632, 2048), "auto mixed"), choice_key("int8", (2048, 2048), "auto")
        assert load_choice("machine", key) is None
        save_choice("machine", key, NAMES)
        save_choice("machine", other, NAMES[::-1])
        save_choice("elsewhere", key, ("mv",) * 4)
        assert load_choice("machine", key) == NAMES
        assert load_choice("machine", other) == NAMES[::-1]
        assert load_choice("elsewhere", key) == ("mv",) * 4
        assert load_choice("elsewhere", other) is load_choice("nowhere", key) is None
        save_choice("machine", key, NAMES[::-1])
        assert load_choice("machine", key) == NAMES[::-1]
        assert [path.name for path in folder.iterdir()] == [FILE_NAME]

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "[]", "null", "3", "[" * 10**5, '{"machine": []}', '{"machine": {"key": "native"}}',
            '{"machine": {"key": ["native", "native", "native"]}}', '{"machine": {"key": [1, 2, 3, 4]}}',
            '{"machine": {"key": null}}', '{"machine": 5}', "\udcff",
        ],
    )  # fmt: skip
    def test_damaged_files(self, folder: Path, text: str) -> None:
        folder.mkdir()
        path = folder / FILE_NAME
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert load_choice("machine", "key") is None
        save_choice("machine", "key", NAMES)
        assert load_choice("machine", "key") == NAMES

    def test_what_is_understood_is_kept(self, folder: Path) -> None:
        folder.mkdir()
        (folder / FILE_NAME).write_text(json.dumps({"machine": 5, "other": {"key": list(NAMES)}}))
        save_choice("machine", "key", NAMES)
        assert load_choice("other", "key") == NAMES

    def test_a_folder_in_its_place(self, folder: Path) -> None:
        (folder / FILE_NAME).mkdir(parents=True)
        save_choice("machine", "key", NAMES)
        assert load_choice("machine", "key") is None
        assert [path.name for path in folder.iterdir()] == [FILE_NAME]

    def test_a_folder_that_cannot_be_made(self, folder: Path) -> None:
        folder.write_text("a file")
        save_choice("machine", "key", NAMES)
        assert load_choice("machine", "key") is None

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
    def test_a_folder_that_cannot_be_written(self, folder: Path) -> None:
        folder.mkdir(mode=0o500)
        save_choice("machine", "key", NAMES)
        assert load_choice("machine", "key") is None

    def test_a_write_that_fails(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_choice("machine", "key", NAMES)

        def full(*arguments: object, **options: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        save_choice("machine", "key", NAMES[::-1])
        assert load_choice("machine", "key") == NAMES
        assert [path.name for path in folder.iterdir()] == [FILE_NAME]

    def test_no_folder_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("core.cache_folder.cache_folder", lambda: None)
        save_choice("machine", "key", NAMES)
        assert load_choice("machine", "key") is None

    def test_the_machine_is_another_with_other_threads(self) -> None:
        assert machine_key(2) == machine_key(2) != machine_key(3)
        assert torch.__version__ in machine_key(2)

    def test_the_machine_is_another_without_compiled_kernels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLAMA_TUI_NATIVE", "0")
        without = machine_key(2)
        assert without.endswith("native none")


@pytest.mark.parametrize("names", [*product("ab", repeat=4), tuple("abca"), tuple("abcd")])
def test_words_for_every_pattern(names: tuple[str, ...]) -> None:
    """Read back, the words name the kernel of every class."""
    text = kernel_words(names)
    if len(set(names)) == 1:
        assert text == names[0]
        return
    found: list[str] = []
    for part in text.split(", "):
        name, _, span = part.partition(" for ")
        if span == "more":
            found += [name] * (4 - len(found))
            continue
        number = span.removesuffix(" rows").removesuffix(" row")
        low, _, high = number.partition("-")
        assert ("1", "2", "9")[len(found)] == low
        assert span.endswith(" row" if number == "1" else " rows")
        found += [name] * (("1", "8", "64").index(high or low) + 1 - len(found))
    assert tuple(found) == names
    assert text.count(" for ") == 1 + sum(a != b for a, b in pairwise(names))


def test_words() -> None:
    assert kernel_words(("native", "native", "bfloat16", "bfloat16")) == (
        "native for 1-8 rows, bfloat16 for more"
    )
    assert kernel_words(("mv", "linear", "linear", "float32")) == (
        "mv for 1 row, linear for 2-64 rows, float32 for more"
    )
    assert len(CLASSES) == 4


def test_it_imports_no_torch() -> None:
    program = (
        "import sys, core.weights.kernel_cache as cache; cache.machine_key(2); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
