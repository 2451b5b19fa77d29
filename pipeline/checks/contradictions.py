"""Checks of which no response can hold both. Pure: two checks in, a reason out.

Does not: find every such pair. Three checks, a regular expression, a schema and a user's function
can exclude each other in ways that this does not see.
"""

from pipeline.checks import CHECKS, run_check
from pipeline.checks.parameters import CheckConfig, Edges, Json, Language, Phrases, Range, Spelling

_JSON_STARTS, _JSON_ENDS = '{["-0123456789tfn`', '}]"0123456789el`'


def contradiction(first: CheckConfig, second: CheckConfig) -> str:
    """Why no response holds both, in a few words; empty when nothing speaks against it."""
    for one, other in ((first, second), (second, first)):
        if reason := _excludes(one, other):
            return reason
    return ""


def _excludes(one: CheckConfig, other: CheckConfig) -> str:
    if isinstance(one, Range) and isinstance(other, Range) and one.min and other.max is not None:
        # Words are separated, so that n of them have at least 2 n - 1 characters.
        least = {"words": {"characters": 2 * one.min - 1}}.get(one.name, {}) | {one.name: one.min}
        if least.get(other.name, 0) > other.max:
            return f"at least {one.min:g} {one.name} and at most {other.max:g} {other.name}"
    if isinstance(one, Language) and isinstance(other, Language) and one.language != other.language:
        return "the languages '{}' and '{}'".format(*sorted((one.language, other.language)))
    if isinstance(one, Spelling) and isinstance(other, Spelling) and one.variant != other.variant:
        return "US and UK spelling"
    if isinstance(one, Json) and isinstance(other, Edges):
        place, signs = (0, _JSON_STARTS) if other.name == "starts_with" else (-1, _JSON_ENDS)
        if not any(text[place] in signs for text in other.texts):
            return f"JSON that {other.name.replace('_', ' ')} '{other.texts[0]}'"
    if isinstance(one, Phrases) and one.name == "required":
        return next((r for phrase in one.phrases if (r := _breaks(phrase, other))), "")
    if isinstance(one, Edges):
        reasons = [_breaks(text, other) for text in one.texts]
        return reasons[0] if all(reasons) else ""
    return ""


def _breaks(text: str, other: CheckConfig) -> str:
    """Why a response with this text in it cannot hold the other check; empty when it may."""
    if isinstance(other, Range):
        # A minimum may be reached by what else is there, a reading grade by anything.
        if other.max is None or other.name not in ("words", "characters"):
            return ""
        other = other.model_copy(update={"min": None})
    elif not CHECKS[other.name].stays_broken:
        return ""
    result = run_check(other, text)
    return "" if result.passes else f"'{text}' is needed, and of it: {result.reason.rstrip('.')}"
