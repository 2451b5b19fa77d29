"""Trajectories: replies of several turns, as token ids with a weight for each token.

In:  the shared conversation, and the turns that follow it on one side of a pair
Out: ids after the prompt, and weights: 0 for what users and tools said and for the template, the
     weight of the turn for what the assistant wrote, its end-of-turn token included

With weights of 1 the loss is DPO on the assistant's turns alone (M-DPO, Xiong et al. 2024), with
those of `turn_weights` DMPO (Shi et al. 2024), and with one turn either is DPO itself.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.config.training import TurnsConfig
from pipeline.errors import DataError
from pipeline.training.worker.kto_rows import Ids


def turn_weights(num_turns: int, config: TurnsConfig) -> list[float]:
    """Weight of each assistant turn, the first one first.

    DMPO's phi(t, T) = gamma^t (1 - gamma^(T - t)) / (1 - gamma^T), and (T - t) / T at gamma 1.
    """
    if config.learn == "last":
        return [0.0] * (num_turns - 1) + [1.0]
    if config.gamma is None:
        return [1.0] * num_turns
    if config.gamma == 1:
        return [(num_turns - t) / num_turns for t in range(num_turns)]
    whole = 1 - config.gamma**num_turns
    return [
        config.gamma**t * (1 - config.gamma ** (num_turns - t)) / whole for t in range(num_turns)
    ]


def encode_turns(
    encoder: Any,
    messages: Sequence[dict[str, str]],
    turns: Sequence[dict[str, str]],
    row_id: str,
    config: TurnsConfig,
) -> tuple[Ids, list[float]]:
    """Ids and weights of the turns after the prompt; both end with the last turn's end.

    Args:
        encoder: a `ReplyEncoder`.

    Raises:
        DataError: the turns do not end with the assistant's, or a later turn changes the tokens
            before it.
    """
    if not turns or turns[-1]["role"] != "assistant":
        raise DataError(
            f"row {row_id}: its turns have to end with one of the assistant, whose reply is learned"
        )
    weights = iter(turn_weights(sum(turn["role"] == "assistant" for turn in turns), config))
    prompt: Ids = encoder.prompt(messages)
    ids: Ids = []
    learned: list[float] = []
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = [*messages, *turns[:number]]
        context: Ids = encoder.prompt(before)
        if context[: len(prompt) + len(ids)] != prompt + ids:
            raise DataError(
                f"row {row_id}: the chat template renders earlier turns in another way once turn "
                f"{number + 1} follows them, so their tokens cannot be learned; use a template "
                "that keeps them, or `turns: {learn: last}` with the earlier turns in `messages`"
            )
        reply: Ids = encoder.reply(before, context, turn["content"], row_id)
        learned += [0.0] * (len(context) - len(prompt) - len(ids)) + [next(weights)] * len(reply)
        ids = context[len(prompt) :] + reply
    return ids, learned
