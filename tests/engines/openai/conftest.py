"""Pauses and patience for tests with real servers on loopback."""

import pytest

from pipeline.engines.openai import pace


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds between two tries, and a second of patience."""
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(pace, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(pace, "PATIENCE_S", 1.0)
