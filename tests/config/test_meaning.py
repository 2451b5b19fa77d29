"""Values that Python takes and that no person can mean are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.labeling import PreferenceConfig
from pipeline.config.prompts import PromptsConfig
from pipeline.config.sampling import SampleConfig
from pipeline.constitution import Constitution, Principle
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
        (SampleConfig, {"temperature": 3e-3}),
        (SampleConfig, {"top_p": 5e-324}),
        (SampleConfig, {"max_tokens": 10**12}),
        (PromptsConfig, {"train": ["a.jsonl", "b.jsonl", "a.jsonl"]}),
        (PreferenceConfig, {"score": {"scale": 2e-310}}),
        (PreferenceConfig, {"follow_up": {"scale": 1e200}}),
        (PreferenceConfig, {"score": {"options": ["1", "(1)"]}}),
        (PreferenceConfig, {"judge": {"options": [" ", "B"]}}),
        (PreferenceConfig, {"judge": {"chain_of_thought": {"request": "Compare {first}."}}}),
        (PreferenceConfig, {"judge": {"chain_of_thought": {"ending": "So {a"}}}),
    ],
)
def test_meaningless_value_is_refused(model: Any, values: dict[str, Any]) -> None:
    wanted = r"number|character|less than|drawn|twice|different|blank|placeholder"
    with pytest.raises(ValidationError, match=wanted):
        model.model_validate(values)


@pytest.mark.parametrize("weight", [1e-312, 1e31])
def test_weight_of_no_usual_size_is_refused(weight: float) -> None:
    texts = {"critique_request": "c", "revision_request": "r", "comparison_request": "q"}
    with pytest.raises(ValidationError, match="a number of a usual size"):
        Principle.model_validate({"id": "p", "weight": weight, **texts})


@pytest.mark.parametrize("name", ["\u2066x", "two\nlines", "\u2060", "n" * 201, "a\x9bb"])
def test_name_that_hides_something_is_refused(name: str) -> None:
    principle = Principle(
        id="p", critique_request="c", revision_request="r", comparison_request="q"
    )
    with pytest.raises(ValidationError, match=r"is not a name|at most 200"):
        Constitution(name=name, principles=(principle,))


@pytest.mark.parametrize("blank", ["\u200d\u2060", "\0", "\u00ad \u3000", "\ufeff\x7f"])
def test_text_that_shows_nothing_is_empty(blank: str) -> None:
    with pytest.raises(ValidationError, match="is empty"):
        Principle(id="p", critique_request=blank, revision_request="r", comparison_request="c")
    line = '{"prompt": "' + blank.encode("unicode_escape").decode().replace("\\x", "\\u00") + '"}'
    with pytest.raises(DataError, match=r"prompt (is empty|holds the character NUL)"):
        parse_line(line.encode(), "f, line 1")


def test_repeated_key_of_a_line_is_refused() -> None:
    """JSON itself keeps the last value silently."""
    with pytest.raises(DataError, match="line 4: key 'tags' repeats; keep one"):
        parse_line(b'{"prompt": "a", "tags": [], "tags": ["b"]}', "f, line 4")
