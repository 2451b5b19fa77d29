"""Option scores from the most probable first tokens, for endpoints that return nothing better.

In:  options, and (token text, log-probability) of the top tokens
Out: a log-probability for each option that is listed, and a bound for those that are not

An option that is not listed is not impossible: its log-probability is at most that of the least
probable listed token, or of a listed token with which it begins. When such a token is an option
itself ('1' is listed and '10' is not), it may stand for both, and neither has a value.
Other spellings of an option make the verdict unreadable (`pipeline.engines.spellings`).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.engines.spellings import other_forms
from pipeline.errors import ConfigError
from pipeline.types import OptionScores

_NEGLIGIBLE = 0.01
"""A beginning of this probability or less widens the bound and nothing else."""
_ROUNDED_ONE = 1.02
_FLOOR = -100.0
"""Nats; endpoints write -9999 or -inf for tokens that they did not score."""


def scores_from_top_tokens(
    options: Sequence[str], top: Sequence[tuple[str, float]]
) -> OptionScores:
    """Log-probability (nats) of each option, and the bound for those that are not listed.

    The scores are `unreadable` when the model writes the options in another form than they are
    given in, or none of them.

    Raises:
        ConfigError: the model spells an option with several tokens, so that its first token says
            nothing about the whole.
    """
    listed: dict[str, float] = {}
    for token, logprob in top:
        if logprob > _FLOOR:
            # Two tokens of one text are two ways to say the same.
            listed[token] = float(np.logaddexp(logprob, listed.get(token, -math.inf)))
    values = tuple(listed.get(option) for option in options)
    absent = [option for option, value in zip(options, values, strict=True) if value is None]
    own = sum(math.exp(value) for value in values if value is not None)
    if unreadable := other_forms(options, own, listed):
        return OptionScores(values, unreadable=unreadable)
    if not absent:
        return OptionScores(values)
    begun = {
        option: max(
            (lp for token, lp in listed.items() if token and option.startswith(token)),
            default=-math.inf,
        )
        for option in absent
    }
    values = _without_doubtful(options, values, absent)
    option_mass = sum(math.exp(value) for value in values if value is not None)
    for option, logprob in begun.items():
        if math.exp(logprob) > max(option_mass, _NEGLIGIBLE):
            raise ConfigError(
                f"the model begins option {option!r} with a shorter token, and this endpoint "
                "scores first tokens only; use options of one token such as 'A' and 'B', or a "
                "vLLM server"
            )
    unreadable = ""
    if all(value is None for value in values):
        unreadable = (
            f"the model begins with {_first_tokens(listed)}, not with one of {list(options)}"
        )
    # One listed token bounds nothing but itself: a list of one may have been cut anywhere.
    bound = max(min(listed.values()), *begun.values()) if len(listed) > 1 else None
    return OptionScores(values, bound, unreadable=unreadable)


def check_distribution(top: Sequence[tuple[str, float]], first: Any) -> None:
    """Raises ValueError when the probabilities of the top tokens and of the reply's `first` one add
    to more than 1, as where a server lists logarithms of base 10.
    """
    logprobs = [logprob for _, logprob in top]
    if isinstance(first.logprob, float) and first.token not in dict(top):
        logprobs.append(first.logprob)
    total = sum(math.exp(logprob) for logprob in logprobs if logprob == logprob)
    if total > _ROUNDED_ONE:
        raise ValueError(f"the probabilities of the first tokens add to {total:.3g}")


def _first_tokens(listed: dict[str, float]) -> str:
    """The three most probable tokens with their probabilities."""
    top = sorted(listed, key=lambda token: listed[token], reverse=True)[:3]
    return ", ".join(f"{token!r} ({math.exp(listed[token]):.2g})" for token in top) or "no token"


def _without_doubtful(
    options: Sequence[str], values: Sequence[float | None], absent: Sequence[str]
) -> tuple[float | None, ...]:
    """The values, None for options that may be the first token of an absent one."""
    certain: list[float | None] = []
    for option, value in zip(options, values, strict=True):
        longer = [other for other in absent if other.startswith(option)]
        if value is not None and longer and math.exp(value) > _NEGLIGIBLE:
            raise ConfigError(
                f"option {option!r} begins option {longer[0]!r}, which this endpoint does not "
                "list, so its token may stand for both; use options of which none begins another, "
                "such as '1' to '9', or a vLLM server"
            )
        certain.append(None if longer else value)
    return tuple(certain)
