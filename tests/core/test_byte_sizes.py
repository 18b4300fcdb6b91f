"""Sizes as they are typed and shown."""

from __future__ import annotations

import pytest

from core.errors import UserError
from core.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("6GB", 6 * 10**9), ("6 gb", 6 * 10**9), ("6GiB", 6 * 2**30), (" 1.5GB ", 1_500_000_000),
        (".5GiB", 2**29), ("512MB", 512 * 10**6), ("512mib", 512 * 2**20), ("7KB", 7000), ("7KiB", 7168),
        ("2TB", 2 * 10**12), ("1TiB", 2**40), ("1.GB", 10**9), ("100b", 100),
    ],
)  # fmt: skip
def test_what_is_understood(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6", "--vram 6: a size needs its unit; give 6GB or 6GiB"),
        ("6G", "--vram '6G': give a size with its unit"), ("much", "--vram 'much'"), ("", "--vram ''"),
        ("-1GB", "--vram '-1GB'"), ("0GB", "--vram 0GB: give a size from 1B"), ("1e9GB", "--vram '1e9GB'"),
        ("nanGB", "--vram 'nanGB'"), ("9" * 40 + "GB", "9GB: give a size from 1B"),
        ("6GB 7GB", "--vram '6GB 7GB'"), ("٦GB", "--vram '٦GB'"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_size(text, "--vram")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"), (999, "999 B"), (6 * 10**9, "6 GB"), (13_476_831_232, "13.5 GB"), (270_532_608, "271 MB"),
        (999_999_999, "1 GB"), (8192, "8.19 kB"), (137_953_296_384, "138 GB"), (1_400_000_000_000, "1.4 TB"),
    ],
)  # fmt: skip
def test_how_they_are_shown(nbytes: int, text: str) -> None:
    assert format_size(nbytes) == text
    assert parse_size(text) == pytest.approx(nbytes, rel=0.01) if nbytes else True
