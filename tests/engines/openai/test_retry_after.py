"""What servers write about the next request, as seconds."""

import pytest

from pipeline.engines.openai.retry_after import asked_wait

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:42 GMT"}, 42.0),
        ({"retry-after": "2027-01-15T08:00:42Z"}, 42.0),
        # The server's clock is an hour behind: its own date counts.
        (
            {
                "retry-after": "Fri, 15 Jan 2027 07:00:30 GMT",
                "date": "Fri, 15 Jan 2027 07:00:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "7200"}, 7200.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6.5s"}, 6.5),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 60.0),  # at most a minute
        ({"x-ratelimit-reset": str(int(NOW) + 12)}, 12.0),
        ({"x-ratelimit-reset": str((int(NOW) + 12) * 1000)}, 12.0),
        ({"ratelimit-reset": "9"}, 9.0),
        ({"retry-after": "1", "x-ratelimit-reset": "50"}, 1.0),
    ],
)
def test_a_wait_is_read(headers: dict[str, str], seconds: float) -> None:
    assert asked_wait(headers, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "-3",
        "soon",
        "nan",
        "inf",
        "1e999",
        "Fri, 15 Jan 2027 07:59:00 GMT",
        "٣x",
        "s",
        "1 2",
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms", "x-ratelimit-reset"])
def test_other_words_ask_for_nothing(name: str, value: str) -> None:
    assert asked_wait({name: value}, NOW) is None
