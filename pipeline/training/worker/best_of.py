"""The best reply of each prompt, by the labels of its pairs: what rejection sampling learns from.

In:  rows of pairs
Out: one row per conversation with the reply of the highest mean P(preferred)

The mean is over the pairs that a reply is in, on either side, so that a reply which wins once and
loses twice is not the best. Of n replies that are compared all with all this is the best of n.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from pipeline.ids import content_hash


def best_replies(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with `row_id`, `messages` and `completion`, in the order of the conversations.

    The id is that of a pair in which the reply was chosen. Of equal means the reply of more pairs
    is taken, then the earlier one.
    """
    conversations: dict[str, list[dict[str, Any]]] = {}
    for row in pairs:
        conversations.setdefault(content_hash(row["messages"]), []).append(row)
    return [_best(rows) for rows in conversations.values()]


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shares: dict[str, list[float]] = {}
    won: dict[str, str] = {}
    for row in rows:
        shares.setdefault(row["chosen"], []).append(row["soft_label"])
        shares.setdefault(row["rejected"], []).append(1 - row["soft_label"])
        won.setdefault(row["chosen"], row["row_id"])
    best = max(won, key=lambda reply: (fmean(shares[reply]), len(shares[reply])))
    return {"row_id": won[best], "messages": rows[0]["messages"], "completion": best}
