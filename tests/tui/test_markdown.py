"""Blocks, lines and rows, compared with markdown-it on the whole text and with the text itself."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len, split_graphemes

from tui.markdown.blocks import OPEN_LIMIT, Block, PlainSplitter, printable
from tui.markdown.highlight import highlight
from tui.markdown.lines import Line, lay_out
from tui.markdown.offsets import Offsets
from tui.markdown.pacer import Pacer
from tui.markdown.render import render
from tui.markdown.splitter import Splitter
from tui.markdown.wrap import wrap

HOSTILE = "<think> List<int> [/x] [bold]x[/] [@click=app.quit]x[/] \\(y\\) &lt; {{x}} $a_b$ %s \\[z\\] <b>"

# What models write, and what only testers do.
PIECES = st.sampled_from(
    [
        *(
            "\n",
            "\n\n",
            " ",
            "  ",
            "    ",
            "\t",
            "- ",
            "* ",
            "1. ",
            "12) ",
            "# ",
            "## ",
            "> ",
            "```",
            "```py",
        ),
        *(
            "~~~",
            "`",
            "**",
            "*",
            "_",
            "~~",
            "|",
            "|--|",
            "---",
            "===",
            "[x](y)",
            "![x](y)",
            "<",
            ">",
            "&amp;",
        ),
        *("\\", "word", "two words", "x" * 90, "é", "漢字", "👩‍🚀", "e\u0301", "[", "]", "(", ")", "1", "."),
    ]
)
MARKDOWN = st.lists(PIECES, max_size=60).map("".join)
LETTERS = st.text(alphabet="abcdefghijklmnopqrstuvwxyzäλж漢 \n\n*_#>-+|!<&;\\[]:.=", max_size=300)


def blocks_of(text: str) -> list[Block]:
    splitter = Splitter()
    return splitter.feed(text) + splitter.close()


def lines_of(blocks: list[Block], width: int = 80) -> list[Line]:
    return [line for block in blocks for element in render(block) for line in element.lines(width)]


def rows_of(text: str, width: int = 80) -> list[str]:
    """What the screen shows of a reply, without the empty row above it."""
    rows = []
    for block in blocks_of(text):
        rows += [""] if block.gap and rows else []
        for line in lines_of([block], width):
            for row in lay_out(line, 0, width):
                rows.append(("".join(before for before, _ in row.prefix) + row.text).rstrip())
    return rows


def in_chunks(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(edges)]


class TestSplitter:
    @given(MARKDOWN, st.lists(st.integers(0, 10_000), max_size=20))
    def test_chunks_make_no_difference(self, text: str, cuts: list[int]) -> None:
        splitter = Splitter()
        blocks = [block for chunk in in_chunks(text, cuts) for block in splitter.feed(chunk)]
        assert blocks + splitter.close() == blocks_of(text)

    @given(
        st.sampled_from(["x", "word ", "- a\n  - b\n", "| a | b |\n", "> q\n", "a\nb ", "[", "漢。"]),
        st.data(),
    )
    @settings(max_examples=40)
    def test_chunks_make_no_difference_to_what_gets_too_long(self, unit: str, data: st.DataObject) -> None:
        head = data.draw(st.sampled_from(["", "- ", "> ", "# ", "```\n", "| a | b |\n|---|---|\n"]))
        text = head + unit * (3 * OPEN_LIMIT // len(unit))
        splitter, blocks = Splitter(), []
        for chunk in in_chunks(text, data.draw(st.lists(st.integers(0, len(text)), max_size=30))):
            blocks += splitter.feed(chunk)
            assert len(splitter.tail.source) <= 1.1 * OPEN_LIMIT
        blocks += splitter.close()
        assert blocks == blocks_of(text)
        assert all(len(block.source) <= 1.1 * OPEN_LIMIT for block in blocks)

    @given(LETTERS)
    def test_no_letter_is_lost(self, text: str) -> None:
        shown = "".join(line.text for line in lines_of(blocks_of(text), 200))
        assert [c for c in shown if c.isalpha()] == [c for c in text if c.isalpha()]

    @given(st.text(alphabet="abcxyzäß漢字 ,.?!'\n", max_size=400))
    def test_plain_text_is_shown_as_it_is(self, text: str) -> None:
        shown = [line.text.strip() for line in lines_of(blocks_of(text)) if line.text.strip()]
        # Four spaces make code, which keeps its indentation; otherwise a line is a line.
        assert shown == [line.strip() for line in text.split("\n") if line.strip()]

    def test_code_without_a_fence_keeps_its_indentation(self) -> None:
        text = "def f(n):\n  if n:\n        return n\n  return 0"
        assert [line.text for line in lines_of(blocks_of(text))] == text.split("\n")

    def test_a_long_list_is_committed_item_by_item(self) -> None:
        splitter = Splitter()
        for number in range(500):
            done = splitter.feed(f"- item {number}\n")
            assert len(done) == (number > 0)
            assert splitter.tail.source == f"- item {number}"

    def test_a_tail_is_literal(self) -> None:
        splitter = Splitter()
        splitter.feed("Some **bold** and\n  `code` <think>")
        assert splitter.tail.source == "Some **bold** and\n  `code` <think>"

    def test_a_fence_is_committed_in_chunks_and_stays_code(self) -> None:
        code = "\n".join(f"x = {number}  # **not bold**" for number in range(50))
        blocks = blocks_of(f"```python\n{code}\n```\nafter")
        assert len(blocks) > 5
        assert [block.language for block in blocks] == ["python"] * (len(blocks) - 1) + [""]
        assert "\n".join(block.source for block in blocks[:-1]) == code

    def test_an_unclosed_fence_is_code(self) -> None:
        (block,) = blocks_of("```\n# no heading\n\n- no list")
        assert (block.kind, block.source) == ("code", "# no heading\n\n- no list")

    def test_code_behind_the_mark_of_a_fence_is_kept(self) -> None:
        (block,) = blocks_of("```python print(1)\nprint(2)\n```")
        assert (block.language, block.source) == ("python", "python print(1)\nprint(2)")

    def test_the_mark_that_closes_a_fence_is_not_shown_while_it_arrives(self) -> None:
        splitter = Splitter()
        splitter.feed("```\nx\n``")
        assert splitter.tail.source == "x"

    def test_a_cut_table_repeats_its_head(self) -> None:
        head = "| name | value |\n|------|------:|\n"
        blocks = blocks_of(head + "".join(f"| row {n} | {n} |\n" for n in range(600)))
        assert len(blocks) > 2
        assert all(block.source.startswith(head) for block in blocks)
        rows = [line for block in blocks for line in block.source.split("\n")[2:]]
        assert rows == [f"| row {n} | {n} |" for n in range(600)]

    @pytest.mark.alone
    def test_cost_does_not_grow(self) -> None:
        rng, splitter, costs = random.Random(1), Splitter(), []
        for _ in range(4000):
            chunk = rng.choice(["- ", "word ", "other ", "\n- item "])
            start = time.perf_counter()
            splitter.feed(chunk)
            costs.append(time.perf_counter() - start)
        assert sum(sorted(costs[-800:])[:700]) <= 2 * sum(sorted(costs[:800])[:700])


class TestPlainSplitter:
    @given(st.text(alphabet="ab \n*", max_size=300), st.lists(st.integers(0, 300), max_size=9))
    def test_keeps_every_line(self, text: str, cuts: list[int]) -> None:
        splitter = PlainSplitter()
        blocks = [block for chunk in in_chunks(text, cuts) for block in splitter.feed(chunk)]
        blocks += splitter.close()
        assert "\n".join(block.source for block in blocks) == text.rstrip("\n")

    def test_cuts_only_at_lines_and_sentences(self) -> None:
        splitter = PlainSplitter()
        sentence = "All is well that ends well. "
        blocks = splitter.feed(sentence * 500) + splitter.close()
        assert len(blocks) > 3
        assert "".join(block.source for block in blocks) == sentence * 500
        assert all(block.source.endswith(". ") for block in blocks)


DOCUMENT = """\
# Title

Intro with *emphasis*
and a second line.

- one
- two
  continued
  - nested
    1. deep
    2. deeper
- three

  a paragraph in three

5. five
6. six
   ```python
   code = "in six"
   ```
7. seven

> quoted
> lines

| a | b |
|---|---|
| 1 | 2 |

Setext
------

    indented code

```
fenced
```

***

The end.
"""


def oracle(text: str) -> list[tuple[str, int, str]]:
    """(kind, depth of lists, text) of each leaf, from markdown-it parsing the whole text at once."""
    leaves, depth, kind = [], 0, ""
    for token in MarkdownIt("gfm-like", {"html": False, "linkify": False}).parse(text):
        depth += {"list_item_open": 1, "list_item_close": -1}.get(token.type, 0)
        if token.type.endswith("_open"):
            kind = token.type.removesuffix("_open")
        if token.type == "inline":
            text = "".join(child.content if child.type != "softbreak" else "\n" for child in token.children)
            leaves.append(("cell" if kind in ("th", "td") else kind, depth, text))
        elif token.type in ("fence", "code_block"):
            leaves.append(("code", depth, token.content.rstrip("\n")))
        elif token.type == "hr":
            leaves.append(("rule", depth, ""))
    return leaves


def test_blocks_are_those_of_commonmark() -> None:
    parser = MarkdownIt("gfm-like", {"html": False, "linkify": False})
    found: list[tuple[str, int, str]] = []
    depths = {0: 0}
    for block in blocks_of(DOCUMENT):
        depth = depths.setdefault(block.indent, 0) + bool(block.marker)
        depths[block.indent + len(block.marker)] = depth
        if block.kind == "code":
            found.append(("code", depth, block.source))
        else:
            found += [(kind, depth, text) for kind, _, text in oracle(block.source)]
    assert found == oracle(DOCUMENT)
    assert parser.options["html"] is False


def test_markers_count_as_commonmark_does() -> None:
    markers = [block.marker for block in blocks_of("7. a\n7. b\n7. c\n\ntext\n\n1) x\n2) y\n   - z\n3) w\n")]
    assert markers == ["7. ", "8. ", "9. ", "", "1) ", "2) ", "◦ ", "3) "]


class TestRender:
    def test_everything_at_once(self) -> None:
        assert rows_of(DOCUMENT, 40) == [
            *("Title", "", "Intro with emphasis", "and a second line.", ""),
            *("• one", "• two", "  continued", "  ◦ nested", "    1. deep", "    2. deeper", "• three"),
            *("", "  a paragraph in three", "", "5. five", "6. six", '   code = "in six"', "7. seven"),
            *("", "▌ quoted", "▌ lines", "", "a │ b", "──┼──", "1 │ 2", "", "Setext", ""),
            *("indented code", "", "fenced", "", "", "", "The end."),
        ]

    @pytest.mark.parametrize(
        "text", [HOSTILE, "[1]: http://x", "<!-- x -->", "a &copy; b", "\\{x\\}", "<br/>"]
    )
    def test_literal_text_stays_literal(self, text: str) -> None:
        assert rows_of(text, 200) == [text]

    def test_escapes_of_markdown_are_escapes(self) -> None:
        assert rows_of(r"\*x\* snake\_case 1\. \# y") == ["*x* snake_case 1. # y"]

    def test_line_breaks_are_kept(self) -> None:
        assert rows_of("a\nb  \nc\\\nd") == ["a", "b", "c\\", "d"]

    def test_links_show_their_address(self) -> None:
        text = '[docs](http://x/y_z "T") <http://auto> ![pic](p.png) [http://s](http://s) [js](javascript:x)'
        shown = 'docs (http://x/y_z "T") http://auto pic (p.png) http://s js (javascript:x)'
        assert rows_of(text, 200) == [shown]

    def test_spans_name_their_styles(self) -> None:
        (line,) = lines_of(blocks_of("a **b *c*** `d` ~~e~~"))
        found = {line.text[span.start : span.end]: span.styles for span in line.spans}
        assert found == {"b ": ("strong",), "c": ("strong", "em"), "d": ("inline-code",), "e": ("strike",)}

    def test_items_hang(self) -> None:
        rows = rows_of("- aaa bbb ccc ddd\n  10. eee fff ggg\n", 14)
        assert rows == ["• aaa bbb ccc", "  ddd", "  10. eee fff", "      ggg"]

    def test_nested_items_may_be_written_sloppily(self) -> None:
        assert rows_of("1. a\n  - b\n    - c\n2. d") == ["1. a", "   ◦ b", "     ▪ c", "2. d"]

    def test_a_fence_in_an_item(self) -> None:
        assert rows_of("- ```\n  x\n    y\n  ```\n- z") == ["•", "  x", "    y", "• z"]

    def test_deep_nesting_leaves_room_for_text(self) -> None:
        text = "".join(f"{'  ' * depth}- w{depth}\n" for depth in range(40))
        assert max(map(cell_len, rows_of(text, 20))) <= 20
        assert "w39" in "".join(rows_of(text, 20))

    @given(MARKDOWN, st.integers(1, 60))
    @settings(max_examples=60)
    def test_rows_are_never_too_wide(self, text: str, width: int) -> None:
        for line in lines_of(blocks_of(text), width):
            for row in lay_out(line, 0, width):
                size = cell_len("".join(before for before, _ in row.prefix) + row.text)
                assert size <= width or len(split_graphemes(row.text)[0]) == 1

    @pytest.mark.alone
    @pytest.mark.parametrize(
        "unit", ["[", "![[", "*", "**a", "_a ", "`a", "<a@", "[a](", "> ", "- ", "\\", "|", "~~a", "(", "&#x"]
    )
    def test_nothing_takes_long(self, unit: str) -> None:
        start = time.perf_counter()
        rows = rows_of(unit * (OPEN_LIMIT // len(unit)))
        assert rows
        assert time.perf_counter() - start < 0.5


class TestTables:
    TEXT = "| left | right | mid |\n|:--|--:|:-:|\n| a | b | c |\n| `漢字` | **12** | xyz |\n"

    def test_columns_are_aligned(self) -> None:
        assert rows_of(self.TEXT) == [
            "left │ right │ mid",
            "─────┼───────┼────",
            "a    │     b │  c",
            "漢字 │    12 │ xyz",
        ]

    def test_wide_columns_are_wrapped(self) -> None:
        text = "| a | b |\n|--|--|\n| x | " + "some words " * 9 + "|\n| y | z |\n"
        rows = rows_of(text, 30)
        assert max(map(cell_len, rows)) <= 30
        assert rows[2:4] == ["x │ some words some words some", "  │ words some words some"]
        assert "".join(rows).count("words") == 9
        assert rows[-2].startswith("──┼──")

    def test_what_cannot_be_a_grid_becomes_records(self) -> None:
        text = (
            "| one | two | three | four |\n|--|--|--|--|\n"
            + "| aaaaaaaa | bbbbbbbb | cccccccc | dddddddd |\n" * 2
        )
        record = ["one: aaaaaaaa", "two: bbbbbbbb", "three: cccccccc", "four: dddddddd"]
        assert rows_of(text, 20) == [*record, "", *record]

    def test_cells_beyond_the_head_are_kept(self) -> None:
        assert "gamma" in "".join(rows_of("a | b\n--|--\nalpha | beta | gamma\n"))


class TestWrap:
    # Whole characters: what a joiner without anything to join takes on a screen, nobody knows.
    @given(
        st.lists(st.sampled_from([*"ab  漢é-。", "👩\u200d🚀", "e\u0301"]), max_size=120).map("".join),
        st.integers(1, 30),
        st.booleans(),
    )
    def test_rows_are_the_text(self, text: str, width: int, words: bool) -> None:
        rows = wrap(text, width, width, words)
        shown = [text[start:end] for start, end in rows]
        if words:
            assert "".join(shown).replace(" ", "") == text.replace(" ", "")
        else:
            assert "".join(shown) == text
        for row in shown:
            assert cell_len(row) <= width or len(split_graphemes(row)[0]) == 1

    @given(st.text(alphabet="abc  ", max_size=120), st.integers(1, 30), st.integers(1, 30), st.booleans())
    def test_ascii_and_other_text_wrap_alike(self, text: str, first: int, rest: int, words: bool) -> None:
        assert wrap(text.replace("a", "é"), first, rest, words) == wrap(text, first, rest, words)

    @given(
        st.text(alphabet="ab 漢e\u0301", max_size=80),
        st.text(alphabet="ab 漢", max_size=20),
        st.integers(2, 20),
    )
    def test_more_text_changes_only_the_last_row(self, text: str, more: str, width: int) -> None:
        before, after = wrap(text, width, width), wrap(text + more, width, width)
        assert after[: len(before) - 1] == before[:-1]

    def test_words_are_kept_whole(self) -> None:
        assert [*wrap("the quick brown fox", 10, 10)] == [(0, 9), (10, 19)]

    def test_a_long_word_is_cut(self) -> None:
        rows = wrap("x" * 10_000, 80, 80)
        assert len(rows) == 125
        assert all(end - start == 80 for start, end in rows)

    def test_wide_characters_do_not_straddle_the_edge(self) -> None:
        assert wrap("漢字漢字", 5, 5) == [(0, 2), (2, 4)]

    def test_no_row_starts_with_a_full_stop(self) -> None:
        assert wrap("漢字漢字。", 8, 8) == [(0, 3), (3, 5)]

    def test_characters_made_of_several_stay_together(self) -> None:
        text = "e\u0301" * 20 + "👩\u200d🚀" * 5
        edges = {edge for row in wrap(text, 7, 7) for edge in row}
        starts = {start for start, _, _ in split_graphemes(text)[0]} | {len(text)}
        assert edges <= starts


class TestHighlight:
    CODE = 'def f(x):\n    """Doc."""\n    return x + 1  # note'

    def test_names_the_parts_of_code(self) -> None:
        found = {}
        for text, spans in zip(self.CODE.split("\n"), highlight(self.CODE, "python"), strict=True):
            found |= {text[span.start : span.end]: span.styles[0] for span in spans}
        assert found["def"] == found["return"] == "code-keyword"
        assert found["f"] == "code-function"
        assert found["1"] == "code-number"
        assert found["+"] == "code-operator"
        assert found["# note"] == "code-comment"

    def test_unknown_languages_and_long_code_stay_plain(self) -> None:
        assert highlight(self.CODE, "no-such-language") == [[], [], []]
        assert highlight("x = 1\n" * 5000, "python") == [[]] * 5001

    def test_a_chunk_knows_the_lines_before_it(self) -> None:
        (line,) = highlight("still text", "python", context='x = """\nmore')
        assert line[0].styles == ("code-string",)

    @given(st.text(max_size=200), st.sampled_from(["python", "c++", "html", "bash", "json", "diff"]))
    @settings(max_examples=60)
    def test_every_line_has_its_spans(self, code: str, language: str) -> None:
        code = printable(code)
        spans = highlight(code, language)
        lines = code.split("\n")
        assert len(spans) == len(lines)
        for line, found in zip(lines, spans, strict=True):
            assert all(0 <= span.start < span.end <= len(line) for span in found)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.data())
def test_offsets_are_running_sums(heights: list[int], data: st.DataObject) -> None:
    offsets = Offsets(heights[:5])
    for height in heights[5:]:
        offsets.append(height)
    for _ in range(3):
        index = data.draw(st.integers(0, len(heights) - 1))
        heights[index] = data.draw(st.integers(0, 9))
        offsets.set(index, heights[index])
        assert offsets.start(index) == sum(heights[:index])
        assert offsets.total == sum(heights)
    rows = [index for index, height in enumerate(heights) for _ in range(height)]
    assert [offsets.find(row) for row in range(len(rows))] == rows


def test_printable_replaces_what_would_break_the_screen() -> None:
    assert printable("a\x1b[31m\x07b\r\nc\td\u2028e\ud800") == "a\ufffd[31m\ufffdb\nc\td\ne\ufffd"


def test_the_pacer_waits_for_the_interval_and_three_times_the_cost() -> None:
    now, work = [10.0], [5.0]
    pacer = Pacer(lambda: now[0], lambda: work[0])
    assert pacer.wait() == 0
    pacer.begin()
    now[0], work[0] = 10.01, 5.01
    pacer.end()
    assert pacer.wait() == pytest.approx(0.09)
    now[0], work[0] = 10.05, 5.04  # painted later: 40 ms in all
    pacer.end()
    assert pacer.wait() == pytest.approx(0.12)
    now[0] = 11
    assert pacer.wait() == 0
