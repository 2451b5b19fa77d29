"""Values that Python takes and that no person can mean are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.labeling import PreferenceConfig
from pipeline.config.recipe import PromptsConfig
from pipeline.config.sampling import SampleConfig
from pipeline.constitution import Principle
from pipeline.data.prompt_lines import parse_line
from pipeline.errors import DataError

INF = float("inf")


@pytest.mark.parametrize(
    "model, values",
    [
        (SampleConfig, {"temperature": INF}),
        (SampleConfig, {"temperature": float("nan")}),
        (SampleConfig, {"temperature": 1e9}),
        (SampleConfig, {"max_tokens": True}),
        (SampleConfig, {"top_p": True}),
        (SampleConfig, {"stop": ["end", ""]}),
        (PromptsConfig, {"train": ["a.jsonl"], "heldout_limit": True}),
        (PreferenceConfig, {"pair": {"min_margin": INF}}),
        (PreferenceConfig, {"pair": {"min_margin": 1e20}}),
    ],
)
def test_meaningless_value_is_refused(model: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"number|character|less than"):
        model.model_validate(values)


@pytest.mark.parametrize("blank", ["\u200d\u2060", "\0", "\u00ad \u3000", "\ufeff\x7f"])
def test_text_that_shows_nothing_is_empty(blank: str) -> None:
    with pytest.raises(ValidationError, match="is empty"):
        Principle(id="p", critique_request=blank, revision_request="r", comparison_request="c")
    line = '{"prompt": "' + blank.encode("unicode_escape").decode().replace("\\x", "\\u00") + '"}'
    with pytest.raises(DataError, match="prompt is empty"):
        parse_line(line.encode(), "f, line 1")


def test_repeated_key_of_a_line_is_refused() -> None:
    """JSON itself keeps the last value silently."""
    with pytest.raises(DataError, match="line 4: key 'tags' repeats; keep one"):
        parse_line(b'{"prompt": "a", "tags": [], "tags": ["b"]}', "f, line 4")
