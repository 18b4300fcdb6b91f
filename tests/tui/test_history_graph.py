"""Graphs against plainly written pictures."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from tui.readings import KEPT, Readings, Series
from tui.widgets.history_graph import HistoryGraph


class Graph(App[None]):
    """One graph of a given height, as wide as the terminal."""

    def __init__(self, graph: HistoryGraph, height: int) -> None:
        super().__init__()
        self._graph = graph
        graph.styles.height = height

    def compose(self) -> ComposeResult:
        yield self._graph


def picture(graph: HistoryGraph) -> list[str]:
    return [graph.render_line(y).text for y in range(graph.size.height)]


async def test_columns_stand_on_the_floor_and_grow_with_the_reading() -> None:
    graph = HistoryGraph(top=8)
    async with Graph(graph, 2).run_test(size=(5, 4)):
        for reading in (1, 2, 3, 4, 5, 6, 7, 8, 0, None):
            graph.push(reading)
        # Heights of dots, two a cell: 1 2 | 3 4 | 5 6 | 7 8 | none
        assert picture(graph) == ["  ⣠⣾ ", "⣠⣾⣿⣿ "]


async def test_a_gap_and_nothing_at_all_are_blank_and_the_newest_is_at_the_right() -> None:
    graph = HistoryGraph(top=4)
    async with Graph(graph, 1).run_test(size=(4, 3)):
        for reading in (4, None, 4):
            graph.push(reading)
        assert picture(graph) == ["  ⢸⢸"]
        graph.push(0.001)  # above nothing
        assert picture(graph) == ["  ⡇⣇"]
        graph.push(99)  # above the range
        assert picture(graph) == [" ⢸⢸⣸"]


async def test_a_line_has_a_dot_for_each_reading_and_a_dotted_mark() -> None:
    graph = HistoryGraph(top=8, line=True)
    graph.mark = 4
    async with Graph(graph, 2).run_test(size=(6, 4)):
        assert picture(graph) == ["      ", "⠈ ⠈ ⠈ "]  # the mark alone, in every second cell
        graph.show([8, 8, 5, 5, 4, 4, 1, 1, 0, 0])
        assert picture(graph) == [" ⠉⣀   ", "⠈ ⠈⠉⣈⣀"]


async def test_what_looks_the_same_is_not_painted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = HistoryGraph(top=100)
    async with Graph(graph, 1).run_test(size=(4, 3)):
        painted: list[object] = []
        monkeypatch.setattr(graph, "refresh", lambda *args, **kwargs: painted.append(args))
        for _ in range(20):
            graph.push(None)
            graph.push(0.0)
        assert painted == []
        graph.push(50)
        assert len(painted) == 1
        graph.readings.append(50)  # by whoever shares them
        graph.moved()
        assert len(painted) == 2


async def test_a_graph_follows_its_size() -> None:
    graph = HistoryGraph(top=4)
    async with Graph(graph, 1).run_test(size=(2, 3)) as pilot:
        for reading in (1, 2, 3, 4, 4, 4):
            graph.push(reading)
        assert picture(graph) == ["⣾⣿"]
        await pilot.resize_terminal(4, 3)
        await pilot.pause()
        assert picture(graph) == [" ⣠⣾⣿"]


def test_series_keep_ten_minutes_and_the_peak_for_ever() -> None:
    series = Series()
    assert (series.last, series.peak) == (None, None)
    series.push(None)
    assert (series.last, series.peak) == (None, None)
    for value in (3.0, 9.0, 1.0):
        series.push(value)
    for _ in range(KEPT):
        series.push(2.0)
    assert (len(series.values), series.last, series.peak) == (KEPT, 2.0, 9.0)


def test_a_fresh_set_of_readings_knows_nothing() -> None:
    readings = Readings()
    assert readings.bus_peak is None
    assert readings.link is None
