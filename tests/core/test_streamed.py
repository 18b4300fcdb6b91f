"""Streamed equals resident on the simulated device, through every tier and accident."""

from __future__ import annotations

from tests.streamed import StreamedSuite, small

__all__ = ["small"]


class TestSimulated(StreamedSuite):
    """The suite on the simulated device."""

    device = "sim"
