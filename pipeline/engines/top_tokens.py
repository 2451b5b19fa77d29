"""Option scores from the most probable first tokens, for endpoints that return nothing better.

In:  options, and (token text, log-probability) of the top tokens
Out: a log-probability for each option that is listed, and a bound for those that are not

An option that is not listed is not impossible: its log-probability is at most that of the least
probable listed token, or of a listed token with which it begins. When such a token is an option
itself ('1' is listed and '10' is not), it may stand for both, and neither has a value.
"""

import math
from collections.abc import Sequence

from pipeline.errors import ConfigError

_NEGLIGIBLE = 0.01
"""A beginning of this probability or less widens the bound and nothing else."""


def scores_from_top_tokens(
    options: Sequence[str], top: Sequence[tuple[str, float]]
) -> tuple[tuple[float | None, ...], float | None]:
    """Log-probability (nats) of each option or None, and the bound for the Nones.

    Raises:
        ConfigError: the model spells an option with several tokens, so that its first token says
            nothing about the whole.
    """
    listed: dict[str, float] = {}
    for token, logprob in top:
        listed[token] = max(logprob, listed.get(token, -math.inf))
    values = tuple(listed.get(option) for option in options)
    absent = [option for option, value in zip(options, values, strict=True) if value is None]
    if not absent:
        return values, None
    begun = {
        option: max((lp for token, lp in listed.items() if token and option.startswith(token)),
                    default=-math.inf)
        for option in absent
    }
    values = _without_doubtful(options, values, absent)
    found_mass = sum(math.exp(value) for value in values if value is not None)
    for option, logprob in begun.items():
        if math.exp(logprob) > max(found_mass, _NEGLIGIBLE):
            raise ConfigError(
                f"the model begins option {option!r} with a shorter token, and this endpoint "
                "scores first tokens only; use options of one token such as 'A' and 'B', or a "
                "vLLM server"
            )
    return values, max(min(listed.values()), *begun.values())


def _without_doubtful(
    options: Sequence[str], values: Sequence[float | None], absent: Sequence[str]
) -> tuple[float | None, ...]:
    """The values, None for options that may be the first token of an absent one."""
    found: list[float | None] = []
    for option, value in zip(options, values, strict=True):
        longer = [other for other in absent if other.startswith(option)]
        if value is not None and longer and math.exp(value) > _NEGLIGIBLE:
            raise ConfigError(
                f"option {option!r} begins option {longer[0]!r}, which this endpoint does not list, "
                "so its token may stand for both; use options of which none begins another, such "
                "as '1' to '9', or a vLLM server"
            )
        found.append(None if longer else value)
    return tuple(found)
