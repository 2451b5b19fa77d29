"""What reaches a terminal cannot control it."""

import pytest

from pipeline.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\tand\nlines, é 字 👩‍💻 \u00a0", "plain\tand\nlines, é 字 👩‍💻 \u00a0"),
        ("\x1b[2J\x07\r\b", "\\x1b[2J\\x07\\r\\x08"),
        ("\x9b31m", "\\x9b31m"),
        ("safe\u202egnp.exe", "safe\\u202egnp.exe"),
        ("a\ud83d", "a\\ud83d"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
