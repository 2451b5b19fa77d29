"""Exact scores of whole option strings, from calls that each return one token's log-probabilities.

In:  the token ids of each option
Out: which next tokens to ask for after which beginnings, and the sum along each option

The options form a tree: ' (A)' and ' (B)' share their first token, part at the second, and end
apart. One call per inner node asks for the log-probabilities of that node's next tokens; the
score of an option is the sum along its path, so a shared beginning can never look like a tie.

Where one option is the beginning of another, as '1' of '10' in a model that spells numbers digit
by digit, the sum along '1' also counts the replies that continue to '10'. They are subtracted:

    P(reply begins with 1 and not with 10) = P(1) - P(10) = P(1) (1 - P(0 | 1))

That is exact, needs no end-of-turn token and one more short call, and says the same as in a model
that has '10' as one token: each reply counts for the longest option that it begins with.
"""

import math
from collections.abc import Mapping, Sequence

from pipeline.errors import ConfigError

TokenIds = tuple[int, ...]
MAX_NEXT_TOKENS = 128
"""Most tokens whose log-probabilities one vLLM call returns (`logprob_token_ids`)."""


def option_nodes(options: Sequence[TokenIds]) -> dict[TokenIds, tuple[int, ...]]:
    """Beginning -> next tokens, shortest beginning first; the root is the empty tuple."""
    nodes: dict[TokenIds, dict[int, None]] = {}
    for ids in options:
        for length, token_id in enumerate(ids):
            nodes.setdefault(ids[:length], {})[token_id] = None
    return {start: tuple(nodes[start]) for start in sorted(nodes, key=len)}


def token_by_token_pays(options: Sequence[TokenIds]) -> bool:
    """True when few short calls over a shared prompt beat one full prompt pass for each option."""
    nodes = option_nodes(options)
    few = len(nodes) <= 4 * len(options)
    return few and all(len(following) <= MAX_NEXT_TOKENS for following in nodes.values())


def sum_along(
    options: Sequence[TokenIds], values: Mapping[TokenIds, Mapping[int, float]]
) -> tuple[float, ...]:
    """Log-probability (nats) of each option from the log-probabilities at each node."""
    return tuple(
        sum(values[ids[:length]][token_id] for length, token_id in enumerate(ids))
        for ids in options
    )


def longest_only(options: Sequence[TokenIds], logprobs: Sequence[float]) -> tuple[float, ...]:
    """Log-probability (nats) that a reply begins with each option and with no longer one.

    Args:
        logprobs: log-probability that a reply begins with each option at all.
    """
    return tuple(
        _without(logprobs[index], [logprobs[other] for other in _next_longer(options, index)])
        for index in range(len(options))
    )


def check_distinct(options: Sequence[str], ids: Sequence[Sequence[int | str]]) -> None:
    """No two options may be the same tokens.

    Raises:
        ConfigError: no score can tell the two apart.
    """
    first: dict[tuple[int | str, ...], str] = {}
    for option, tokens in zip(options, ids, strict=True):
        if tuple(tokens) in first:
            raise ConfigError(
                f"options {first[tuple(tokens)]!r} and {option!r} are the same tokens for this "
                "model, so no score can tell them apart; reword one"
            )
        first[tuple(tokens)] = option


def continuation(option: str, before: Sequence[int], together: Sequence[int]) -> TokenIds:
    """Tokens of an option behind a prompt, from those of the prompt and of both.

    Raises:
        ConfigError: the option is empty, or changes the tokens before it.
    """
    if list(together[: len(before)]) != list(before) or len(together) == len(before):
        raise ConfigError(
            f"option {option!r} changes the tokens of the prompt before it, or is empty, so its "
            "score would be wrong; begin it on a token boundary, for instance by moving a space "
            "between `reply_prefix` and the options"
        )
    return tuple(together[len(before) :])


def rewritten(role: str) -> ConfigError:
    """The content of a message cannot be scored, since the template changes it."""
    return ConfigError(
        f"the chat template rewrites the content of a {role} message, so its log-probability has "
        "no meaning; use a template that keeps the text as it is"
    )


def _next_longer(options: Sequence[TokenIds], index: int) -> list[int]:
    """Options that begin with this one, without those that begin with another of them."""
    start = options[index]
    longer = [
        other
        for other, ids in enumerate(options)
        if len(ids) > len(start) and ids[: len(start)] == start
    ]
    return [
        other
        for other in longer
        if not any(
            len(options[between]) < len(options[other])
            and options[other][: len(options[between])] == options[between]
            for between in longer
        )
    ]


def _without(logprob: float, parts: Sequence[float]) -> float:
    """log(P - sum of parts); rounding may leave less than nothing, which is nothing."""
    if not parts or logprob == -math.inf:
        return logprob
    rest = 1.0 - sum(math.exp(part - logprob) for part in parts)
    return logprob + math.log(rest) if rest > 0 else -math.inf
