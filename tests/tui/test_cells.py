"""The cells of the memory map against the plan they are of, and its words against figures done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.engine.events import Activity, InSlot, Placed
from core.model.shapes import SHAPES
from core.weights import placement as planner
from core.weights.needs import Needs, aligned, needs_of
from core.weights.plan import Budget, Choice, Place, Plan
from tests.fake_plans import CARD, GB, ON_CPU, RATES, SIMULATED, plan_7b, readings
from tui.cells import Grid, changes, computing, grid_of, moving
from tui.map_axis import Axis
from tui.map_words import (
    cursor_words,
    legend,
    link_words,
    megabytes,
    milliseconds,
    row_place,
    slot_words,
    tile_words,
    what_if_words,
)
from tui.placement import Placement

ATTENTION = ("wq", "wk", "wv", "wo")
MIXED = Choice(True, ("attention", "layers.3-5.w2"), ("w1",))
ROOMY = replace(CARD, vram=11 * GB)


def model(layers: int, *, tied: bool = False, quant: str = "none") -> Needs:
    return needs_of(replace(SHAPES["7b"], n_layers=layers, tied=tied), "float16", 2048, 512, quant=quant)


def cell(grid: Grid, name: str):  # noqa: ANN201
    return next(cell for cell in grid.cells() if cell.name == name)


PLANS: list[tuple[Needs, Budget, Choice]] = [
    (model(32), ROOMY, MIXED),
    (model(32), ROOMY, Choice()),
    (model(32), ROOMY, Choice(True)),
    (model(22, tied=True), ROOMY, Choice(True, ("wq",))),
    (model(22, tied=True), ROOMY, Choice(True, ("output",))),
    (model(80, quant="int4"), ROOMY, Choice(True, ("layers.0-9",))),
    (model(32), replace(CARD, vram=20 * GB, card=24 * GB), Choice()),
    (model(32), replace(CARD, ram=6 * GB), Choice(True, ATTENTION)),
    (model(3), replace(CARD, vram=2 * GB), Choice(True, ("w1", "w2", "layers.0-1.w3", *ATTENTION))),
    (model(32), ON_CPU, Choice()),
    (model(32), replace(ON_CPU, ram=8 * GB), Choice()),
]


@pytest.mark.parametrize(("needs", "budget", "choice"), PLANS)
def test_the_maps_bytes_are_the_plans(needs: Needs, budget: Budget, choice: Choice) -> None:
    plan = planner.plan(needs, budget, choice, RATES)
    grid = grid_of(plan)
    cells = list(grid.cells())
    assert len({cell.name for cell in cells}) == len(cells)
    assert sum(cell.nbytes for cell in cells) == needs.weights
    assert sum(cell.streamed for cell in cells) == plan.streamed_per_token
    assert {c.name for c in cells} == set(plan.places) - ({"embeddings"} if needs.tied else set()) | {"norms"}
    letters = {Place.GPU: "G", Place.RAM: "SP", Place.DISK: "D", Place.CPU: "C"}
    assert all(c.letter in letters[plan.places[c.name]] for c in cells if c.name != "norms")
    assert grid.layers * 7 == sum(len(row) for row in grid.rows)
    assert sum(cell.compute_s for cell in cells) <= 1 / plan.predicted_tok_s * 1.001


def test_a_cell_knows_its_shape_its_slot_and_its_time() -> None:
    plan = planner.plan(model(32), ROOMY, MIXED, RATES)
    grid = grid_of(plan)
    w3 = cell(grid, "layers.4.w3")
    nbytes = 11008 * 4096 * 2
    assert (w3.letter, w3.format, w3.shape, w3.nbytes) == ("S", "float16", (11008, 4096), nbytes)
    assert w3.streamed == nbytes
    assert w3.slot == next(i for i, ring in enumerate(plan.rings) if "layers.4.feed_forward" in ring.units)
    assert w3.copy_s == pytest.approx(nbytes / 25.2e9)
    assert w3.compute_s == pytest.approx(nbytes / 800e9)
    w1, wq = cell(grid, "layers.4.w1"), cell(grid, "layers.4.wq")
    assert (w1.letter, w1.slot, w1.copy_s) == ("C", None, 0)
    assert w1.compute_s == pytest.approx(nbytes / 40e9)
    assert (wq.letter, wq.shape, wq.copy_s) == ("G", (4096, 4096), 0)
    assert cell(grid, "output").shape == cell(grid, "embeddings").shape == (32000, 4096)
    assert cell(grid, "embeddings").letter == "P"
    assert cell(grid, "embeddings").streamed == 4096 * 2


def test_what_is_not_pinned_has_a_letter_of_its_own() -> None:
    grid = grid_of(plan_7b(), frozenset({"layers.3.feed_forward", "output"}))
    pageable = {cell.name for cell in grid.cells() if cell.letter == "P"}
    assert pageable == {"layers.3.w1", "layers.3.w2", "layers.3.w3", "output", "embeddings"}
    disk = grid_of(planner.plan(model(32), replace(CARD, ram=6 * GB), Choice(True, ATTENTION), RATES))
    assert "D" in {cell.letter for cell in disk.cells()}


def test_what_is_lit_is_the_streamed_part_of_the_unit_that_is_copied() -> None:
    plan = planner.plan(model(32), ROOMY, MIXED, RATES)
    grid = grid_of(plan)

    def at(unit: str, state: str = "copying") -> Activity:
        return Activity(None, (None, InSlot(unit, 1, 9, state)))  # type: ignore[arg-type]

    assert moving(at("layers.7.feed_forward"), grid) == {"layers.7.w2", "layers.7.w3"}
    assert moving(at("layers.4.feed_forward"), grid) == {"layers.4.w3"}  # w2 is kept there
    assert moving(at("output.1"), grid) == {"output"}
    assert moving(at("layers.7.feed_forward", "there"), grid) == set()
    assert moving(at("layers.7.feed_forward", "waiting"), grid) == set()
    assert moving(Activity(placing="layers.9.wq"), grid) == {"layers.9.wq"}
    assert moving(at("measurement"), grid) == computing(Activity("measurement"), grid) == set()
    assert computing(Activity("layers.4.feed_forward"), grid) == {"layers.4.w1", "layers.4.w2", "layers.4.w3"}
    assert computing(Activity("output.0"), grid) == {"output"}


# --- what is pending ----------------------------------------------------------------------------


def pending(choice: Choice | None = None, **budget: int) -> tuple[Placement, Grid]:
    made = Placement()
    plan = plan_7b(choice, replace(ROOMY, **budget))
    made.placed(Placed(plan))
    return made, grid_of(plan)


def test_changes_are_what_the_planner_would_place_elsewhere() -> None:
    made, grid = pending()
    assert changes(made, grid) == {}
    made.put({"layers.3.w2", "layers.4.w2"}, Place.GPU)
    assert changes(made, grid) == {"layers.3.w2": "G", "layers.4.w2": "G"}
    made.put({"layers.4.w2", "wq"}, Place.CPU)
    made.put({"layers.0.wk"}, Place.RAM)
    assert changes(made, grid) == {"layers.3.w2": "G", "layers.4.w2": "C", "layers.0.wk": "S"}
    expected = plan_7b(made.shown.choice, ROOMY)
    assert made.forecast() == expected
    assert expected.choice.cpu == ("layers.4.w2",)


def test_a_refused_change_is_shown_as_it_was_asked_for() -> None:
    made, grid = pending(vram=8 * GB)
    names = {f"layers.{i}.w2" for i in range(32)}
    made.put(names, Place.GPU)
    assert isinstance(made.forecast(), str)
    assert changes(made, grid) == dict.fromkeys(names, "G")
    assert what_if_words(made, 32) == (made.forecast(),)


def test_putting_back_what_is_leaves_nothing_pending() -> None:
    for choice in (None, Choice(), Choice(True, ATTENTION, ("w1",))):
        made, grid = pending(choice)
        one = next(cell for row in grid.rows for cell in row if cell.letter != "G")
        made.put({one.name}, Place.GPU)
        assert made.pending
        before = Place.CPU if one.letter == "C" else Place.RAM
        made.put({one.name}, before)
        assert not made.pending
        made.put({cell.name for cell in grid.rows[0] if cell.letter == "G"}, Place.GPU)
        assert not made.pending


def test_what_the_planner_chose_stays_around_what_the_user_changes() -> None:
    made, grid = pending(Choice(), vram=9 * GB)
    streamed = next(cell for row in grid.rows for cell in row if cell.letter == "S")
    kept = next(cell for row in grid.rows for cell in row if cell.letter == "G")
    made.put({streamed.name}, Place.CPU)
    made.put({kept.name}, Place.RAM)
    assert changes(made, grid) == {streamed.name: "C", kept.name: "S"}


def test_changes_are_taken_back_one_by_one() -> None:
    made, _ = pending()
    assert not made.step_back()
    made.put({"layers.3.w2"}, Place.GPU)
    made.put({"layers.3.w2"}, Place.GPU)  # nothing new
    made.enter_cpu("w1")
    assert made.step_back()
    assert made.wanted.cpu == ()
    assert "layers.3.w2" in made.wanted.kept
    assert made.step_back()
    assert not made.pending
    assert not made.step_back()
    made.put({"layers.3.w2"}, Place.GPU)
    made.undo()
    assert not made.step_back()


# --- in words -----------------------------------------------------------------------------------


def test_figures_have_the_digits_that_mean_something() -> None:
    assert [megabytes(x) for x in (69_120, 5_500_000, 33_554_432, 271e6)] == ["0.07", "5.5", "33.6", "271"]
    times = [milliseconds(x) for x in (0.404, 0.0042, 0.00013, 0.000001)]
    assert times == ["404 ms", "4.2 ms", "0.13 ms", "<0.01 ms"]
    assert [row_place(x) for x in ("GGG", "PP", "GGSS", "S" * 70 + "G" * 30)] == [
        "GPU", "pageable", "G2 S2", "G30 S70",
    ]  # fmt: skip
    assert row_place("G" * 10 + "S" * 10 + "C" * 10) == "mixed"


def test_the_cursor_says_what_a_cell_is_where_and_how_long_it_takes() -> None:
    plan = plan_7b(Choice(True, ATTENTION, ("w1",)), ROOMY)
    grid = grid_of(plan)
    total = milliseconds(1 / plan.predicted_tok_s)
    slot = cell(grid, "layers.4.w2").slot
    assert cursor_words([cell(grid, "layers.4.w2")], grid, {"layers.4.w2": "G"}) == (
        "layers.4.w2", "4096 x 11008", "float16", "90.2 MB", f"pinned RAM → slot {slot}, then GPU",
        f"copied 3.6 ms, computed 0.11 ms of {total} per token, predicted",
    )  # fmt: skip
    two = [cell(grid, "layers.4.w1"), cell(grid, "layers.4.w2")]
    assert cursor_words(two, grid, {"layers.4.w2": "C"})[:3] == (
        "2 cells: layers.4 w1 w2", "180 MB", "1 pinned RAM + 1 CPU, then 2 CPU",
    )  # fmt: skip
    everything = [cell for row in grid.rows for cell in row[3:6]]
    assert cursor_words(everything, grid, {})[0] == "21 cells: layers.3-5"
    assert cursor_words([cell(grid, "embeddings")], grid, {})[4] == "pageable RAM, a row at a time"
    assert cursor_words([cell(grid, "norms")], grid, {})[0] == "norms"
    simulated = grid_of(plan_7b(budget=SIMULATED))
    assert cursor_words([cell(simulated, "layers.0.w1")], simulated, {})[-1].endswith("per token, simulated")


def test_slots_say_what_becomes_of_them_in_one_width() -> None:
    plan = plan_7b(Choice(True, ATTENTION), ROOMY)
    assert len(plan.rings) >= 2
    slots = (
        InSlot("layers.4.feed_forward", 9, 9, "there"),
        InSlot("layers.15.feed_forward", 62, 100, "copying"),
        InSlot("output.1", 0, 9, "waiting"),
        None,
    )[: len(plan.rings)]
    words = slot_words(Activity("layers.4.feed_forward", slots), plan)
    assert len({len(word) for word in words}) == 1
    assert words[0].rstrip() == "0: 4.feed_forward  computing"
    assert words[1].rstrip() == "1: 15.feed_forward ▓▓▓▓▓░░░  62 %"
    assert slot_words(Activity(None, slots), plan)[0].rstrip() == "0: 4.feed_forward  ready"
    assert slot_words(Activity(), plan)[0].rstrip() == "0: empty"
    begun = Activity(None, (InSlot("layers.4.feed_forward", 0, 9, "copying"),))
    assert slot_words(begun, plan)[0].rstrip() == "0: 4.feed_forward  copying"
    assert slot_words(Activity(), plan_7b(Choice(), ON_CPU)) == ("nothing is streamed",)


def test_a_tile_of_the_head_is_counted() -> None:
    assert tile_words(Activity("output.2"), 8) == "tile 3/8"
    assert tile_words(Activity("layers.0.attention", (InSlot("output.0", 1, 9, "copying"),)), 8) == "tile 1/8"
    assert tile_words(Activity("output.0"), 1) == tile_words(Activity("layers.0.attention"), 8) == ""


def test_the_link_line_is_the_plans_bytes_and_the_engines_count() -> None:
    plan: Plan = plan_7b()
    assert link_words(plan, None) == ("8.9 GB/token",)
    assert link_words(plan, readings(plan)) == ("8.9 GB/token", "PCIe 21.4 of 25.2 GB/s 85 % (engine)")
    assert link_words(plan_7b(Choice(), ON_CPU), None) == ("nothing is copied for a token",)
    disk = planner.plan(model(32), replace(CARD, ram=6 * GB), Choice(True, ATTENTION), RATES)
    assert link_words(disk, readings(disk))[-1] == "disk 1.9 GB/s"


def test_the_legend_tells_where_all_bytes_are() -> None:
    plan = plan_7b(Choice(True, ("w1",)))
    kept = sum(aligned(w.nbytes) for u in plan.needs.units for w in u.weights if w.name.endswith(".w1"))
    words = legend(grid_of(plan))
    assert words[0] == f"G GPU {kept / 1e9:.2f} GB"  # and the norms, which are next to nothing
    assert words[3:] == ("D disk", "C on CPU", "reverse moving", "bold computing")


@pytest.mark.parametrize(
    ("axis", "cursor", "line"),
    [
        (Axis(0, 9, 9, 3), None, " 0           4           8 "),
        (Axis(0, 9, 9, 3), 5, " 0           4  5        8 "),
        (Axis(0, 12, 12, 1), 11, "0         11"),  # which takes the place of the 10
        (Axis(0, 12, 30, 1), 0, "0          …"),
        (Axis(5, 12, 30, 1), 16, "…    10   16"),
        (Axis(18, 12, 30, 1), 29, "… 20      29"),
        (Axis(0, 6, 6, 2), 3, "0     3   5 "),
    ],
)
def test_numbers_stand_above_their_layers(axis: Axis, cursor: int | None, line: str) -> None:
    drawn, place = axis.line(cursor)
    assert drawn == line
    assert drawn[place.start : place.stop] == ("" if cursor is None else str(cursor))
