"""Checks that a library decides: regular expressions, languages, JSON, Python; a user's function.

The libraries are imported when a constitution uses them.
"""

import ast
import ctypes
import faulthandler
import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NoReturn

from pipeline.checks.marks import FENCE
from pipeline.checks.parameters import Function, Json, Language, Pattern
from pipeline.checks.result import HOLDS, CheckResult, fails
from pipeline.config.factories import find_factory
from pipeline.ids import canonical_json
from pipeline.types import Messages

FEWEST_LETTERS = 20
"""A text with fewer letters could be of many languages."""
LONGEST_S = 10.0
"""Seconds that a user's function has for one response, during which the run does nothing else."""


def pattern(config: Pattern, text: str, conversation: Messages) -> CheckResult:
    """The expression matches somewhere, or nowhere."""
    match = regex(config.pattern).search(_valid(text))
    if bool(match) == config.present:
        return HOLDS
    if match:
        return fails(f"The response has '{match[0][:60]}', which is not allowed.")
    return fails(f"Nothing in the response matches '{config.pattern}'.")


def language(config: Language, text: str, conversation: Messages) -> CheckResult:
    """The detector takes the text for the language."""
    import py3langid

    if sum(map(str.isalpha, text)) < FEWEST_LETTERS:
        return HOLDS
    detected = py3langid.classify(_valid(text))[0]
    if detected == config.language:
        return HOLDS
    return fails(f"The response is in '{detected}', but '{config.language}' is needed.")


def valid_json(config: Json, text: str, conversation: Messages) -> CheckResult:
    """All of the text is JSON under the schema."""
    fenced = FENCE.fullmatch(text.strip())
    try:
        value = json.loads(fenced["code"] if fenced else text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return fails(f"The response is not JSON: {error}.")
    problem = next(_validator(canonical_json(config.json_schema)).iter_errors(value), None)
    if problem is None:
        return HOLDS
    place = f" at {problem.json_path}" if problem.path else ""
    return fails(f"The JSON does not fit its schema{place}: {problem.message[:200]}.")


def python(config: object, text: str, conversation: Messages) -> CheckResult:
    """There is a fenced block of Python, and each of them parses."""
    blocks = [
        block["code"]
        for block in FENCE.finditer(text)
        if block["language"].strip().lower() in ("", "python", "py", "python3")
    ]
    if not blocks:
        return fails("The response has no code block of Python.")
    for code in blocks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return fails(f"The code does not parse: {error}.")
    return HOLDS


def function(config: Function, text: str, conversation: Messages) -> CheckResult:
    """A user's function decides, in `LONGEST_S`."""
    decide = _made(config.factory, canonical_json(config.args))
    with _limited():
        return decide(text, conversation)


class _TooLongError(BaseException):
    """Raised within a function that takes too long, which may handle any Exception itself."""


@contextmanager
def _limited() -> Iterator[None]:
    """Raises TimeoutError in what takes longer than `LONGEST_S`."""
    is_main = threading.current_thread() is threading.main_thread()
    try:
        with _by_signal() if is_main else _by_thread():
            yield
    except _TooLongError:
        raise TimeoutError(f"no result within {LONGEST_S:g} s") from None


@contextmanager
def _by_signal() -> Iterator[None]:
    """Stops loops and expressions; only the main thread of a process takes signals."""

    def stop(*_: object) -> NoReturn:
        raise _TooLongError

    handler = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _by_thread() -> Iterator[None]:
    """Stops loops, on a worker of a cluster. What never comes back from C, such as an expression of
    `re`, ends the process after twice the time: to the driver a row that kills its workers.
    """
    thread, has_ended, lock = threading.get_ident(), False, threading.Lock()

    def stop() -> None:
        with lock:
            if not has_ended:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(_TooLongError)
                )

    timer = threading.Timer(LONGEST_S, stop)
    timer.daemon = True
    try:
        faulthandler.dump_traceback_later(2 * LONGEST_S, exit=True, file=2)
        timer.start()
        try:
            yield
        finally:
            with lock:
                has_ended = True
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()


@cache
def regex(expression: str) -> Any:
    """A compiled RE2 expression, whose time is linear in the text. Raises re2.error."""
    import re2

    options = re2.Options()
    options.log_errors = False
    return re2.compile(expression, options)


def languages() -> list[str]:
    """The codes that the detector knows."""
    import py3langid

    return sorted(code for code, _ in py3langid.rank("all of them"))


@cache
def _validator(schema: str) -> Any:
    """Validates under a schema. A `pattern` in it is RE2, and nothing is fetched for a `$ref`."""
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend
    from referencing import Registry

    def matches(validator: Any, pattern: str, value: Any, schema: Any) -> Any:
        if isinstance(value, str) and not regex(pattern).search(_valid(value)):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    linear = extend(Draft202012Validator, {"pattern": matches})
    return linear(json.loads(schema), registry=Registry())


@cache
def _made(factory: str, args: str) -> Callable[[str, Messages], CheckResult]:
    made: Callable[[str, Messages], CheckResult] = find_factory(factory, "check")(
        **json.loads(args)
    )
    return made


def _valid(text: str) -> str:
    """The text for libraries that take UTF-8: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
