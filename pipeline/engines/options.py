"""Exact scores of whole option strings, from calls that each return one token's log-probabilities.

In:  the token ids of each option
Out: which next tokens to ask for after which beginnings, and the sum along each option

The options form a tree: ' (A)' and ' (B)' share their first token, part at the second, and end
apart. One call per inner node asks for the log-probabilities of that node's next tokens; the
score of an option is the sum along its path, so a shared beginning can never look like a tie.
"""

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


def check_distinct(options: Sequence[str], ids: Sequence[Sequence[int | str]]) -> None:
    """No option may be the beginning of another.

    Raises:
        ConfigError: no score can tell the two apart.
    """
    for index, shorter in enumerate(ids):
        for other, longer in enumerate(ids):
            if index != other and longer[:len(shorter)] == shorter:
                raise ConfigError(
                    f"option {options[index]!r} is the beginning of option {options[other]!r} "
                    "in this model's tokens, so no score can tell them apart; reword one"
                )
