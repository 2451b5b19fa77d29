"""The set of directed replies: for drawn directions, the response to each prompt that is best.

In:  shards of prompts, of responses and of their ratings under all principles
Out: rows of dataset/directed.parquet, for `method: dpa`

Each prompt has `directions` rows, each with an angle drawn by seed. Only responses whose ratings
are readable for every judge, and which are whole, take part; with several judges the ratings are
averaged.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from pipeline.config.training import DpaConfig
from pipeline.ids import row_id, uniform
from pipeline.labeling.directions import at_angle, best, directed
from pipeline.records import PromptRow, ResponseRow, RevisionRow, Row, ScoreRow
from pipeline.types import Messages, is_blank

TOO_FEW = "fewer than two rated responses"


@dataclass(frozen=True, kw_only=True)
class DirectedRow(Row):
    """A conversation with a direction in its system message, and the reply that is best in it."""

    kind: ClassVar[str] = "directed"
    prompt_id: str = ""
    messages: Messages = ()
    completion: str = ""
    completion_id: str = ""
    score_id: str = ""
    """Row with the reply's ratings; the first judge's, where there are several."""
    angle: float = 0.0
    """Of the direction, in degrees."""


def directed_rows(
    prompts: Sequence[PromptRow],
    texts: Sequence[ResponseRow | RevisionRow],
    scores: Sequence[ScoreRow],
    config: DpaConfig,
    seed: int,
    run_id: str,
) -> Iterator[DirectedRow | str]:
    """For each prompt and direction its row, or the reason why there is none."""
    ratings: dict[str, list[ScoreRow]] = {}
    for score in scores:
        ratings.setdefault(score.response_id, []).append(score)
    replies: dict[str, list[ResponseRow | RevisionRow]] = {}
    for text in texts:
        if usable(text, ratings.get(text.row_id, ()), config.attributes):
            replies.setdefault(text.prompt_id, []).append(text)
    for prompt in prompts:
        rated = replies.get(prompt.row_id, [])
        vectors = [vector(ratings[text.row_id], config.attributes) for text in rated]
        for number in range(config.directions):
            if len(rated) < 2:
                yield TOO_FEW
                continue
            low, high = config.angles
            drawn = uniform("direction", seed, prompt.row_id, number)
            angle = low + (high - low) * drawn
            chosen = rated[best(at_angle(angle), vectors)]
            messages = directed(prompt.messages, config.attributes, at_angle(angle))
            reply = chosen.revision if isinstance(chosen, RevisionRow) else chosen.response
            (score, *_) = ratings[chosen.row_id]
            yield DirectedRow(
                row_id=row_id("directed", prompt.row_id, number, angle, score.row_id),
                parent_ids=(prompt.row_id, chosen.row_id, score.row_id),
                run_id=run_id,
                prompt_id=prompt.row_id,
                messages=messages,
                completion=reply,
                completion_id=chosen.row_id,
                score_id=score.row_id,
                angle=angle,
            )


def usable(
    text: ResponseRow | RevisionRow, ratings: Sequence[ScoreRow], names: Sequence[str]
) -> bool:
    """Whether a response is whole and has a readable rating of both attributes by every judge."""
    reply = text.revision if isinstance(text, RevisionRow) else text.response
    whole = text.status == "ok" and text.finish_reason != "length" and not is_blank(reply)
    return bool(whole and ratings) and all(
        row.status == "ok" and all(math.isfinite(value) for value in vector([row], names))
        for row in ratings
    )


def vector(ratings: Sequence[ScoreRow], names: Sequence[str]) -> tuple[float, ...]:
    """Mean rating of each attribute over the judges; NaN where one has none."""
    values = [dict(zip(row.parts, row.values, strict=False)) for row in ratings]
    return tuple(fmean(each.get(name, math.nan) for each in values) for name in names)
