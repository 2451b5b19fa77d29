"""Each kind of check on texts whose answer is known by hand."""

import json
import signal
import subprocess
import sys
import time
import typing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.checks import CHECKS, CheckConfig, CheckResult, formats, label, run_check
from pipeline.checks.counts import count_sentences, count_words, reading_grade
from pipeline.checks.marks import has_emoji
from pipeline.checks.result import fails
from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import CheckError
from pipeline.types import Messages, user

ADAPTER: TypeAdapter[CheckConfig] = TypeAdapter(CheckConfig)
FENCED = "Here:\n```python\nx = [1]\n# - no item\n```\nDone."


def check(name: str, text: str, conversation: Messages = (), **parameters: Any) -> CheckResult:
    return run_check(ADAPTER.validate_python({"name": name, **parameters}), text, conversation)


def test_table_has_every_parameter_class() -> None:
    union = typing.get_args(typing.get_args(CheckConfig)[0])
    names = [n for model in union for n in typing.get_args(model.model_fields["name"].annotation)]
    assert sorted(names) == sorted(CHECKS)


@pytest.mark.parametrize("name", list(CHECKS))
@pytest.mark.parametrize("text", ["", "\ud800 \x00", "word " * 3000, "(" * 5000, "[" * 5000])
def test_any_text_gets_a_result(name: str, text: str) -> None:
    assert isinstance(check(name, text, **CHECKS[name].example), CheckResult)


@pytest.mark.parametrize(
    ("name", "parameters", "holds", "breaks", "distance"),
    [
        ("words", {"max": 3}, "one two -- three", "one two three four five", 2),
        ("words", {"min": 4, "max": 5}, "a b c d", "a b", 2),
        ("sentences", {"max": 2}, "Dr. Lee paid 3.50. Then he left!", "A b. C d? E f", 1),
        ("sentences", {"min": 3}, "Buy:\n- milk\n- bread", "One.", 2),
        ("paragraphs", {"max": 1}, "One\ntwo", "One\n\ntwo\n \nthree", 2),
        ("characters", {"max": 4}, " abcd \n", "abcdefg", 3),
        ("required", {"phrases": ["free returns", "C++"]}, "Free\nReturns, C++.", "C+++ only", 1),
        ("required", {"phrases": ["iPad"], "match_case": True}, "an iPad", "an ipad", 1),
        ("forbidden", {"phrases": ["cat", "don't"]}, "concatenate", "Cat, cat, don’t", 3),
        ("pattern", {"pattern": r"\bRef: \d+\b"}, "See Ref: 12.", "Ref: none", 1),
        ("pattern", {"pattern": "(?i)sorry", "present": False}, "fine", "Sorry!", 1),
        ("starts_with", {"texts": ["Hi", "Hello "]}, "\nHello Bo", "hello", 1),
        ("ends_with", {"texts": ["Ada"]}, "Best, Ada\n", "Ada, best", 1),
        ("no_lists", {}, FENCED + " 3 - 2, 2024. Fine", "x\n1. a\n  - b\n* c", 3),
        ("no_headings", {}, "no #tag\n```\n# x\n```", "# A\ntext\nB\n---\n**C**\n", 3),
        ("no_emoji", {}, "2 → 3 ✓", "yes \U0001f600 \u2728", 2),
        ("no_exclamation_marks", {}, "a `!` b", "Oh! Now!!", 3),
        ("no_first_person", {}, "It is in the US, i.e. here; mining.", "I’m glad we met us", 3),
        ("question", {}, 'He asked, "why?" today', "see x?y=1 there", 1),
        ("spelling", {"variant": "US"}, "colors, organize, gray", "Colours we organise", 2),
        ("spelling", {"variant": "UK"}, "colours, organize, organise", "My favorite color", 2),
        (
            "language",
            {"language": "de"},
            "Das ist ein kurzer Satz.",
            "This is a short sentence here.",
            1,
        ),
        ("json", {}, '```json\n{"a": [1]}\n```', "{'a': 1}", 1),
        ("json", {"json_schema": {"required": ["b"]}}, '{"b": 0}', '{"a": NaN}', 1),
        ("json", {"json_schema": {"pattern": "^a+$"}}, '"aa"', '"ab"', 1),
        (
            "json",
            {"json_schema": {"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "number"}}}},
            "[1, 2]",
            '["1"]',
            1,
        ),
        ("python", {}, FENCED, "```python\nx = [1\n```", 1),
        ("python", {}, FENCED + "\n```bash\nls | (\n```", "x = 1", 1),
        ("reading_grade", {"max": 3}, "The cat sat. It ran.", "Institutional organizations", 37.8),
    ],
)
def test_one_holds_and_one_does_not(
    name: str, parameters: dict[str, Any], holds: str, breaks: str, distance: float
) -> None:
    assert check(name, holds, **parameters) == CheckResult(True)
    result = check(name, breaks, **parameters)
    assert not result.passes and result.distance == pytest.approx(distance, abs=0.1)
    assert result.reason[0].isupper() and result.reason.endswith(".")


def test_reading_grade_by_hand() -> None:
    """6 words, 2 sentences, 3+3+3+2+3+4 = 18 characters: 4.71 * 3 + 0.5 * 3 - 21.43 = -5.80."""
    assert reading_grade("The cat sat. It ran fast.") == pytest.approx(-5.80)
    assert reading_grade("...") == 0.0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Wait... what?!", 2),
        ("He met J. Smith, e.g. at 5 p.m. on Monday.", 1),
        ("你好。再见！", 2),
        ('"Go." She went.', 2),
        ("A title\n\nOne. Two", 3),
    ],
)
def test_sentences_by_hand(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_dashes_and_bullets_are_no_words() -> None:
    assert count_words("- a — 3 *** don't") == 3


def test_labels_by_hand() -> None:
    """At most 60 words, 83 against 106: distances 23 and 46, so 46 / 69 = 2/3."""
    near, far, holds = fails("x", 23), fails("x", 46), CheckResult(True)
    assert label(near, far) == pytest.approx(2 / 3)
    assert label(far, near) == pytest.approx(1 / 3)
    assert (label(holds, near), label(near, holds)) == (1.0, 0.0)
    assert label(holds, holds) == label(near, near) == 0.5


def test_own_function_reads_the_conversation() -> None:
    parameters = {"factory": "tests.checks.own_checks:answers_in_kind"}
    assert check("function", "Bye?", (user("Hi?"),), **parameters).passes
    assert not check("function", "Bye.", (user("Hi?"),), **parameters).passes


@pytest.mark.parametrize(
    ("maker", "message"),
    [("raises", "raised KeyError: 'no table'"), ("says_true", "returned a bool")],
)
def test_a_bad_function_is_a_check_error(maker: str, message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check("function", "text", factory=f"tests.checks.own_checks:{maker}")


def test_a_function_without_an_end_is_a_check_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LONGEST_S", 0.05)
    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(CheckError, match="TimeoutError: no result within"):
        check("function", "text", factory="tests.checks.own_checks:never_ends")
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is handler
    # Off the main thread, as on workers of a cluster; the next check there has its whole time.
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(check, "function", "text", factory="tests.checks.own_checks:never_ends")
        assert "TimeoutError: no result within" in str(call.exception(30))
        assert pool.submit(check, "words", "text", max=1).result(30).passes


def test_a_function_that_never_returns_ends_the_process_of_a_worker() -> None:
    """No Python can stop an expression of `re` on another thread than the main one."""
    code = """
import threading
from pipeline.checks import formats
from pipeline.checks.parameters import Function
formats.LONGEST_S = 0.05
config = Function(name="function", factory="tests.checks.own_checks:never_returns")
threading.Thread(target=formats.function, args=(config, "text", ())).start()
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=PROJECT_ROOT)
    assert ended.returncode == 1 and "own_checks.py" in ended.stderr


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"name": "words"}, "has no bound; give it min, max or both"),
        ({"name": "words", "min": 9, "max": 2}, "min 9 is above max 2"),
        ({"name": "words", "max": True}, "'max' is true, but a number is needed"),
        ({"name": "forbidden", "phrases": ["a", " "]}, "one of the texts is empty"),
        ({"name": "pattern", "pattern": "(?=a)"}, "does not compile .invalid perl operator"),
        ({"name": "language", "language": "xx"}, "'xx' is not one that the detector knows"),
        ({"name": "json", "json_schema": {"type": "strnig"}}, "schema is not valid at ..type"),
        ({"name": "function", "factory": "os:system"}, "is not marked"),
        ({"name": "function", "factory": "nowhere:f"}, "cannot be loaded"),
        (
            {"name": "function", "factory": "tests.checks.own_checks:raises", "args": {"a": 1}},
            "does not take these args",
        ),
        ({"name": "json", "json_schema": {"pattern": "(?=a)"}}, "does not compile"),
        (
            {"name": "json", "json_schema": {"patternProperties": {"(a+)+$": {}}}},
            "not bound in time",
        ),
        ({"name": "json", "json_schema": {"$ref": "#"}}, "refers to itself without an end"),
        ({"name": "json", "json_schema": {"allOf": [{"$ref": "#"}]}}, "without an end"),
        ({"name": "json", "json_schema": {"$dynamicRef": "#x"}}, "has no '#x'"),
        ({"name": "json", "json_schema": {"requierd": ["a"]}}, "did you mean 'required'"),
        (
            {"name": "json", "json_schema": {"properties": {"a": {"minLenght": 3}}}},
            "did you mean 'minLength'",
        ),
        (
            {"name": "json", "json_schema": {"items": {"$ref": "http://127.0.0.1:9/x"}}},
            "has no 'http://127.0.0.1:9/x', and nothing is fetched",
        ),
        ({"name": "json", "json_schema": {"$ref": "#/$defs/a"}}, "has no '#/.defs/a'"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(parameters)


def test_results_are_consistent() -> None:
    for values in ((True, "", 1.0), (False, "x", 0.0), (False, "x", float("nan"))):
        with pytest.raises(ValueError, match="has distance"):
            CheckResult(*values)
    with pytest.raises(ValueError, match="has no reason"):
        CheckResult(False, " ", 1.0)


@pytest.mark.parametrize("name", list(CHECKS))
@pytest.mark.parametrize(
    "unit", [".", "`", "#", "*", "1. ", "- ", "```\n", "! a", "a.", "=\n", "~~~ "]
)
def test_loops_of_a_model_take_no_time(name: str, unit: str) -> None:
    """20,000 characters; counting sentences by backtracking took 14 s for periods."""
    started = time.process_time()
    check(name, unit * (20_000 // len(unit)) + "x", **CHECKS[name].example)
    assert time.process_time() - started < 2


def test_hard_patterns_take_linear_time() -> None:
    """A backtracking engine needs 2**5000 steps for this."""
    assert not check("pattern", "a" * 5000 + "b", pattern="^(a+)+$").passes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Sure \U0001f600", True),
        ("flag \U0001f1eb\U0001f1f7", True),
        ("love \u2764\ufe0f", True),
        ("done \u2705", True),
        ("2 \u2192 3, 5 \u20ac, \u2713, caf\u00e9, \u201cquoted\u201d \u2014 \u4e2d", False),
    ],
)
def test_emojis_are_told_from_signs(text: str, found: bool) -> None:
    assert has_emoji(text) == found


def test_page_has_the_table() -> None:
    page = (PROJECT_ROOT / "docs/checks.md").read_text(encoding="utf-8")
    for name, kind in CHECKS.items():
        parameters = "; ".join(f"`{key}: {json.dumps(v)}`" for key, v in kind.example.items())
        assert f"| `{name}` | {kind.meaning} | {parameters} | {kind.distance} |" in page, name
