"""The placement as a user changes it: what is pending, what it would give, what is applied."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from core.engine.commands import Apply
from core.engine.events import Failed, Placed, Placing
from core.errors import UserError
from core.model.shapes import SHAPES
from core.weights import placement as planner
from core.weights.names import select
from core.weights.needs import needs_of
from core.weights.plan import Choice, Place, Plan
from tests.fake_backend import SIMULATED_7B, FakeBackend, loads
from tests.fake_plans import CARD, GB, ON_CPU, SIMULATED, plan_7b
from tests.tui.conftest import Driver, Open
from tui.groups import Group, Mark, exclusions, groups_of, kept_by, mark_of
from tui.placement import Placement
from tui.placement_words import figures
from tui.widgets.placement_rows import BudgetRow, CpuRow, KeepRow, ModeRow
from tui.wish import Mode

ATTENTION = ("wq", "wk", "wv", "wo")
ROOMY = replace(CARD, vram=10 * GB)
SIZES = [(120, 40), (80, 24)]


def placement(choice: Choice | None = None, **budget: int) -> Placement:
    made = Placement()
    made.placed(Placed(plan_7b(choice, replace(ROOMY, **budget))))
    return made


def group(made: Placement, label: str) -> Group:
    return next(group for group, _, _ in made.groups() if group.label == label)


def marks(made: Placement) -> str:
    return "".join(f"{mark}{'*' if changed else ''}" for _, mark, changed in made.groups())


def planned(keep: tuple[str, ...] | None = None, *, cpu: tuple[str, ...] = (), **budget: int) -> Plan:
    """What the planner itself says, the names written out by hand."""
    choice = Choice(keep is not None, keep, cpu)
    return plan_7b(choice, replace(ROOMY, **budget))


def used(plan: Plan) -> str:
    return f"{(plan.vram or 0) / GB:.1f}"


# --- groups -------------------------------------------------------------------------------------


def test_every_weight_is_in_one_group() -> None:
    for tied in (False, True):
        needs = needs_of(replace(SHAPES["1b"], tied=tied), "float16", 2048, 512)
        places = planner.plan(needs, ROOMY, Choice(True), plan_7b().rates).places
        groups = groups_of(needs)
        grouped = [name for group in groups for name in group.weights]
        assert len(set(grouped)) == len(grouped)
        assert set(grouped) == set(places) - ({"embeddings"} if tied else set())
        assert [group.label for group in groups[7:]] == (["emb+out"] if tied else ["emb", "out"])
        assert sum(group.nbytes for group in groups) == needs.weights - needs.norms


def test_exclusions_name_just_the_weights_that_are_kept() -> None:
    needs = plan_7b().needs
    weights = [name for group in groups_of(needs) for name in group.weights]
    chance = random.Random(4)
    for _ in range(20):
        kept = frozenset(chance.sample(weights, chance.randrange(len(weights))))
        kept |= {name for name in weights if name.endswith(".w2")}
        names = exclusions(kept, needs)
        assert select(names, needs) == kept
        assert "w2" in names
    assert exclusions(weights, needs) == (*ATTENTION, "w1", "w2", "w3", "embeddings", "output")


def test_marks_say_where_a_group_is() -> None:
    assert marks(placement()) == "xxxx     "
    assert marks(placement(Choice(True))) == " " * 9
    assert marks(placement(Choice(True, ("w1", "layers.3.w2"), ("w3",)))) == "    x~c  "
    plan = planned(vram=9 * GB)  # the planner fills the budget to the last weight
    for kind in groups_of(plan.needs):
        places = {plan.places[name] for name in kind.weights}
        some = len(places) > 1 and Place.GPU in places
        assert (mark_of(kind, plan) is Mark.SOME) is some
    assert Mark.SOME in {mark_of(kind, plan) for kind in groups_of(plan.needs)}


# --- wishes -------------------------------------------------------------------------------------


def test_a_toggle_is_what_the_planner_says_to_it() -> None:
    made = placement()
    assert not made.pending
    made.toggle(group(made, "w2"))
    expected = planned((*ATTENTION, "w2"))
    assert made.forecast() == expected
    assert marks(made) == "xxxx x*   "
    assert made.figures() == figures(planned(ATTENTION), expected)
    assert made.figures()[0] == f"VRAM {used(planned(ATTENTION))}→{used(expected)} of 10.0"
    assert made.apply() == Apply(expected)


def test_a_wish_for_what_is_there_is_none() -> None:
    made = placement()
    made.toggle(group(made, "w2"))
    made.toggle(group(made, "w2"))
    assert not made.pending
    made.step_vram(2)
    made.step_vram(-2)
    assert not made.pending
    made.enter_kept("wo, attention")
    assert not made.pending
    made.toggle(group(made, "wq"))
    assert made.undo()
    assert not made.undo()
    assert marks(made) == "xxxx     "


def test_what_an_automatic_plan_keeps_in_some_layers_stays_when_another_group_goes() -> None:
    made = placement(Choice(), vram=9 * GB)
    before = kept_by(made.shown)
    some = [kind for kind, mark, _ in made.groups() if mark is Mark.SOME]
    whole = next(kind for kind, mark, _ in made.groups() if mark is Mark.KEPT)
    assert some
    made.toggle(whole)
    assert made.wanted.kept == before - set(whole.weights)
    assert isinstance(made.forecast(), Plan)
    assert mark_of(some[0], made.shown) is Mark.SOME


def test_a_refusal_is_shown_and_not_applied() -> None:
    made = placement(vram=8 * GB)
    made.toggle(group(made, "w2"))
    assert made.pending
    assert not made.can_apply
    assert marks(made) == "xxxx x*   "  # what was asked for, to be taken back
    (line,) = made.figures()
    assert line.startswith("the model does not fit")
    with pytest.raises(UserError, match="does not fit"):
        made.apply()
    made.toggle(group(made, "wq"))
    made.toggle(group(made, "wo"))
    assert made.forecast() == planned(("wk", "wv", "w2"), vram=8 * GB)


def test_modes_lead_back_to_what_was_chosen() -> None:
    made = placement()
    made.set_mode(Mode.AUTO)
    assert made.forecast() == planned()
    made.set_mode(Mode.STREAMED)
    assert made.forecast() == planned(())
    assert marks(made).replace("*", "") == " " * 9
    made.set_mode(Mode.CHOSEN)
    assert not made.pending  # as it was
    nothing = placement(Choice(True))
    with pytest.raises(UserError, match="turn a toggle"):
        nothing.set_mode(Mode.CHOSEN)


def test_the_budget_moves_in_quarters_and_stays_on_the_card() -> None:
    made = placement(vram=9_100_000_000)
    for steps, expected in ((1, 9.25), (1, 9.5), (-1, 9.25), (-1, 9), (100, 12), (-1, 11.75), (-999, 0.25)):
        made.step_vram(steps)
        assert made.wanted.vram == pytest.approx(expected * GB)
    made.enter_vram("10.5GB")
    assert made.forecast() == planned(ATTENTION, vram=10_500_000_000)
    for text, complaint in (("13GB", "the card has 12.0 GB"), ("much", "give a size")):
        with pytest.raises(UserError, match=complaint):
            made.enter_vram(text)
    assert made.wanted.vram == 10_500_000_000


def test_names_are_those_of_the_command_line() -> None:
    made = placement()
    made.enter_kept("[w1, layers.0-3]")
    assert made.shown.places == planned(("w1", "layers.0-3")).places
    attention = (f"layers.0-3.{name}" for name in ATTENTION)
    assert made.shown.choice.keep == (*attention, "w1", "layers.0-3.w2", "layers.0-3.w3")
    made.enter_kept("auto")
    assert made.wanted.mode is Mode.AUTO
    made.enter_kept("none")
    assert made.forecast() == planned(())
    with pytest.raises(UserError, match="layers 0 to 31"):
        made.enter_kept("layers.99")
    with pytest.raises(UserError, match="no such weights"):
        made.enter_kept("w9")
    made.undo()
    made.enter_cpu("w2")
    assert made.forecast() == planned(ATTENTION, cpu=("w2",))
    assert marks(made) == "xxxx c*   "
    with pytest.raises(UserError, match="w2 is computed on the CPU"):
        made.toggle(group(made, "w2"))
    made.enter_cpu("none")
    assert not made.pending


def test_only_what_is_fulfilled_stops_being_pending() -> None:
    made = placement()
    made.toggle(group(made, "w2"))
    sent = made.apply()
    assert made.under_way
    made.moved(Placing(GB, 3 * GB))
    assert made.progress() == "moving weights 1.0 of 3.0 GB"
    made.toggle(group(made, "w1"))  # in the meantime
    assert not made.under_way
    made.placed(Placed(sent.plan))
    assert made.pending
    assert made.progress() == ""
    assert marks(made) == "xxxxx*x   "
    made.undo()
    assert marks(made) == "xxxx x   "


def test_a_plan_that_others_changed_leaves_the_wish() -> None:
    made = placement()
    made.toggle(group(made, "w2"))
    smaller = planner.smaller(planned(ATTENTION))
    assert smaller is not None
    made.placed(Placed(smaller, reason="out of memory"))
    assert made.pending
    assert smaller.budget.vram is not None
    assert made.wanted.vram == smaller.budget.vram  # not what has just turned out to be too much
    assert not made.budget_changed
    made.placed(Placed(plan_7b(Choice(), ON_CPU)))
    assert not made.available
    assert not made.pending


def test_the_limit_is_named_where_something_moves() -> None:
    assert placement().limit() == "PCIe"
    assert placement(Choice(True, ATTENTION, ("w2", "w3", "w1", "output"))).limit() == "CPU"
    whole = Placement()
    whole.placed(Placed(plan_7b(Choice(), replace(CARD, vram=20 * GB, card=24 * GB))))
    assert whole.limit() == ""
    simulated = Placement()
    simulated.placed(Placed(plan_7b(budget=SIMULATED)))
    assert simulated.limit() == "simulated link"
    assert Placement().limit() == ""


# --- on the screen ------------------------------------------------------------------------------


def streamed(plan: Plan | None = None, **arguments: object) -> FakeBackend:
    words = " ".join(f"word{i}" for i in range(60))
    plan = plan or plan_7b(budget=ROOMY)
    return FakeBackend([words], load=loads(plan), token_s=0.25, **arguments)  # type: ignore[arg-type]


async def turn(driver: Driver, label: str) -> None:
    """Go to a toggle and turn it."""
    row = driver.chat.query_one(KeepRow)
    driver.chat.sidebar.add_class("-open")
    row.focus()
    await driver.settle()
    labels = [group.label for group, _, _ in driver.chat.session.placement.groups()]
    await driver.press("shift+left", *["right"] * labels.index(label), "space")


@pytest.mark.parametrize("size", SIZES)
async def test_a_toggle_its_what_if_and_f8(open_chat: Open, size: tuple[int, int]) -> None:
    async with open_chat(streamed(), size=size) as driver:
        assert "8.9 GB/token" in driver.screen_text.splitlines()[0]
        await turn(driver, "w2")
        before, after = planned(ATTENTION), planned((*ATTENTION, "w2"))
        speed = f"{before.predicted_tok_s:.1f}→{after.predicted_tok_s:.1f} tok/s predicted"
        for part in ("[x]w2*", f"VRAM {used(before)}→{used(after)} of 10.0", "8.9→6.0 GB/token", speed):
            assert part in driver.screen_text, part
        assert "F8 apply" in driver.screen_text
        assert driver.sent(Apply) == []
        await driver.press("f8")
        assert driver.sent(Apply) == [Apply(after)]
        assert "being applied" in driver.screen_text
        await driver.press("f8")
        assert len(driver.sent(Apply)) == 1
        assert "already" in driver.status
        await driver.press("escape", "escape")
        driver.chat.status.end_flash()
        await driver.advance(0.5)
        await driver.until(lambda: "moving weights 1.4 of 2.9 GB" in driver.status)
        await driver.advance(1)
        assert f"now 6.0 GB per token, {after.predicted_tok_s:.1f} tok/s predicted" in driver.status
        assert "6.0 GB/token" in driver.screen_text.splitlines()[0]
        assert not driver.chat.session.placement.pending
        await driver.press("f8")
        assert "no change of the placement is pending" in driver.status
        assert len(driver.sent(Apply)) == 1


async def test_placed_comes_before_ready_and_says_nothing(open_chat: Open) -> None:
    async with open_chat(streamed(), ready=False) as driver:
        assert "known when the model is loaded" in driver.screen_text
        await driver.say("/keep w1")
        assert "once the model is loaded" in driver.status
        driver.chat.status.end_flash()
        await driver.advance(1.2)
        driver.backend.emit(Placed(plan_7b(budget=ROOMY)))
        await driver.settle()
        assert "[x]wq [x]wk [x]wv [x]wo" in driver.screen_text
        assert "reading weights" in driver.status
        await driver.advance(2)
        assert "idle" in driver.status


@pytest.mark.parametrize("size", SIZES)
async def test_a_reply_goes_on_while_weights_move(open_chat: Open, size: tuple[int, int]) -> None:
    async with open_chat(streamed(), size=size) as driver:
        await driver.say("go")
        await driver.advance(2)
        assert "limited by PCIe · Esc stop" in driver.status
        await driver.say("/keep attention,w2")
        assert "F8 applies: VRAM" in driver.status
        tokens = driver.chat.session.conversation.running.tokens  # type: ignore[union-attr]
        await driver.press("f8")
        await driver.advance(0.5)
        await driver.until(lambda: "moving weights" in driver.status)
        assert "limited by" not in driver.status
        await driver.advance(30)
        assert driver.text_of(1).split()[tokens:] == [f"word{i}" for i in range(tokens, 60)]
        assert driver.backend.plan == planned((*ATTENTION, "w2"))


async def test_an_apply_that_is_refused_leaves_all_as_it_was(open_chat: Open) -> None:
    backend = streamed()
    backend.refusal = "RAM: 3.1 GB too little; give --ram 20GB"
    async with open_chat(backend) as driver:
        await turn(driver, "w2")
        await driver.press("f8", "escape")
        await driver.advance(2)
        assert "RAM: 3.1 GB too little" in driver.screen_text  # in the transcript
        assert "now " not in driver.status
        assert "[x]w2*" in driver.screen_text  # still wanted
        assert "F8 apply" in driver.screen_text
        backend.refusal = ""
        await driver.press("f8")
        await driver.advance(2)
        assert len(driver.sent(Apply)) == 2
        assert "[x]w2 " in driver.screen_text


async def test_what_cannot_fit_is_not_sent(open_chat: Open) -> None:
    for size in SIZES:
        async with open_chat(streamed(planned(ATTENTION, vram=8 * GB)), size=size) as driver:
            await turn(driver, "w2")
            assert "the model does not fit" in driver.screen_text
            await driver.press("f8")
            assert "the model does not fit" in driver.status
            assert driver.sent(Apply) == []
            await driver.press("backspace")
            assert "does not fit" not in str(driver.chat.query_one("#placement-what-if").render())
            assert not driver.chat.session.placement.pending


async def test_out_of_memory_is_told_in_the_transcript(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        await driver.say("go")
        await driver.advance(2)
        smaller = planner.smaller(plan_7b(budget=ROOMY))
        assert smaller is not None
        driver.backend.emit(Placed(smaller, reason="the GPU ran out of memory"))
        await driver.settle()
        note = "the GPU ran out of memory; now"
        assert note in driver.screen_text
        assert "replying" in driver.status
        driver.backend.emit(Placed(smaller, ram_unpinned=3 * GB))
        await driver.settle()
        assert "did not let us pin 3.0 GB" in " ".join(driver.screen_text.split())
        driver.backend.emit(Placed(smaller, ram_unpinned=3 * GB))
        await driver.settle()
        assert driver.screen_text.count("did not let us pin") == 1


async def test_where_nothing_can_be_placed_a_line_says_so(open_chat: Open) -> None:
    for backend in (FakeBackend(), FakeBackend(load=loads(plan_7b(Choice(), ON_CPU)))):
        async with open_chat(backend) as driver:
            assert "computed on the CPU: nothing to stream" in driver.screen_text
            assert "[x]wq" not in driver.screen_text
            await driver.press("f8")
            assert "no change of the placement is pending" in driver.status
            await driver.say("/keep w1")
            assert "nothing is streamed; restart with --device sim" in driver.status
            assert driver.chat.prompt.text == "/keep w1"
            await driver.press("ctrl+t", "up")
            assert driver.chat.focused is driver.chat.query_one("#set-system")  # the last row there is
    disk = plan_7b(Choice(), replace(ON_CPU, ram=8 * GB))
    async with open_chat(streamed(disk)) as driver:
        reason = str(driver.chat.query_one("#placement-reason").render())
        assert reason == f"computed on the CPU; {disk.streamed_per_token / GB:.1f} GB/token come from disk"
        await driver.say("go")
        await driver.advance(1)
        assert "limited by disk" in driver.status


async def test_the_rows_and_their_keys(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        chat = driver.chat
        chat.query_one("#set-system").focus()
        await driver.settle()
        for kind in (ModeRow, KeepRow, BudgetRow, CpuRow):
            await driver.press("down")
            assert isinstance(chat.focused, kind)
        await driver.press("enter", *"layers.0-3", "enter")
        assert chat.session.placement.wanted.cpu == ("layers.0-3",)
        assert "CPU layers * layers.0-3" in driver.screen_text
        await driver.press("backspace", "up", "right")
        assert "VRAM budget*" in driver.screen_text
        assert "10.25 GB" in driver.screen_text
        await driver.press("9", ".", "5", "enter")
        assert chat.session.placement.wanted.vram == 9_500_000_000
        await driver.press("enter", *"100GB", "enter")
        assert "the card has 12.0 GB" in driver.status
        await driver.press("backspace", "up", "up")
        assert "[chosen]" in driver.screen_text
        await driver.press("left", "left")
        assert "[auto]" in driver.screen_text
        assert driver.screen_text.count("[x]") == sum(
            mark is Mark.KEPT for _, mark, _ in chat.session.placement.groups()
        )
        assert "F8 apply" in driver.screen_text.splitlines()[-1]
        await driver.press("right", "right")
        assert not chat.session.placement.pending
        assert "F8" not in driver.screen_text.splitlines()[-1]


async def test_toggles_take_enter_and_the_mouse_and_explain_themselves(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        await turn(driver, "w1")
        assert "w1 (feed-forward, all layers): 2.9 GB" in " ".join(driver.screen_text.split())
        await driver.press("enter")
        assert not driver.chat.session.placement.pending
        await driver.press("right", "right", "right", "right", "right", "right")
        help_text = str(driver.chat.query_one("#sidebar-help").render())
        assert help_text.startswith("output head: 0.26 GB, streamed")
        assert await driver.pilot.click(KeepRow, offset=(8, 1))  # "[ ]w1 [ ]w2"
        await driver.until(lambda: "[x]w2*" in driver.screen_text)
        assert await driver.pilot.click(KeepRow, offset=(36, 0))  # beside them
        await driver.settle()
        assert driver.screen_text.count("*") == 1


async def test_a_tied_model_has_one_toggle_for_both_ends(open_chat: Open) -> None:
    needs = needs_of(replace(SHAPES["1b"], tied=True), "float16", 2048, 512)
    plan = plan_7b(Choice(True), ROOMY, needs=needs)
    async with open_chat(streamed(plan)) as driver:
        assert "[ ]emb+out" in driver.screen_text
        await turn(driver, "emb+out")
        assert "[x]emb+out*" in driver.screen_text
        await driver.press("f8")
        (sent,) = driver.sent(Apply)
        assert sent.plan.places["output"] is sent.plan.places["embeddings"] is Place.GPU


@pytest.mark.parametrize("size", [(120, 40), (100, 30), (80, 24), (60, 16), (40, 12)])
async def test_what_if_is_in_sight_with_the_toggles(open_chat: Open, size: tuple[int, int]) -> None:
    async with open_chat(streamed(), size=size) as driver:
        await turn(driver, "w2")
        await driver.until(lambda: "→" in driver.screen_text)
        assert "[x]w2*" in driver.screen_text
        if size == (120, 40):
            await driver.pilot.resize_terminal(80, 24)
            await driver.until(lambda: "[x]w2*" in driver.screen_text and "→" in driver.screen_text)
            return
        lines = driver.screen_text.splitlines()
        assert len(lines) == size[1]
        assert max(map(len, lines)) <= size[0]


async def test_slash_commands_of_the_placement(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        await driver.say("/keep")
        assert "on the GPU: wq, wk, wv, wo (chosen)" in driver.status
        await driver.say("/keep w9")
        assert "no such weights" in driver.status
        await driver.say("/keep auto")
        assert "F8 applies" in driver.status
        await driver.say("/apply")
        assert driver.sent(Apply) == [Apply(planned())]
        await driver.advance(2)
        await driver.say("/keep auto")
        assert "that is how it is already" in driver.status


async def test_parameters_of_the_placement(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        for line, part in (
            ("/vram", "10.0 GB"),
            ("/vram 9.5GB", "F8 applies"),
            ("/set vram 6", "needs its unit"),
            ("/offload_exclusion w2", "F8 applies"),
            ("/set cpu_layers w1", "F8 applies"),
        ):
            await driver.say(line)
            assert part in driver.status, line
        wanted = driver.chat.session.placement.wanted
        assert wanted.vram == 9_500_000_000
        assert wanted.cpu == ("w1",)
        assert exclusions(wanted.kept, plan_7b().needs) == ("w2",)
        await driver.say("/set ram 20GB")
        assert "restart with --ram" in driver.status
        await driver.say("/set")
        assert "offload_exclusion wq, wk, wv, wo (chosen)" in driver.screen_text


async def test_a_simulated_plan_is_called_so(open_chat: Open) -> None:
    plan = plan_7b(budget=SIMULATED)
    async with open_chat(FakeBackend(load=loads(plan, SIMULATED_7B))) as driver:
        assert "tok/s simulated" in driver.screen_text
        await driver.say("/keep none")
        await driver.press("f8")
        await driver.advance(2)
        assert "predicted (simulated)" in driver.status


async def test_an_unchanged_plan_is_no_news(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        driver.backend.emit(Placed(plan_7b(budget=ROOMY)))
        driver.backend.emit(Failed("something else"))
        await driver.settle()
        assert "now " not in driver.status
