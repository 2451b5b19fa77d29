"""The stages of the labelers that look at one response at a time: scores, then labels from them.

In:  a context, an open engine, the folders of what is compared
Out: `preference/score` and `preference/judge` (and `-2`, `-3`, ... for the rest of a panel)
"""

from pathlib import PurePosixPath
from typing import Literal

from pipeline.engines.base import Engine
from pipeline.labeling.follow_up import FollowUpStage
from pipeline.labeling.from_scores import CompareScoresStage
from pipeline.labeling.score import ScoreStage
from pipeline.run.context import RunContext
from pipeline.stages.base import Stage


def score_folder(labels: str) -> str:
    """Folder of the scores behind a folder of labels: `preference/judge-2` has `preference/score-2`."""
    path = PurePosixPath(labels)
    return str(path.with_name(path.name.replace("judge", "score", 1)))


def score_stages(
    ctx: RunContext, engine: Engine, labels: str, compared: dict[str, str | None]
) -> list[Stage]:
    """Scores of all compared texts by one model, and the labels that follow from them."""
    config, run_id = ctx.config.preference, ctx.run.run_id
    texts = tuple(name for name in compared.values() if name)
    scores: ScoreStage | FollowUpStage
    method: Literal["score", "follow_up"]
    if config.labeler == "follow_up":
        assert ctx.labeling.follow_ups is not None
        scores = FollowUpStage(
            engine=engine,
            follow_ups=ctx.labeling.follow_ups,
            run_id=run_id,
            texts=texts,
            neutral_reply=config.follow_up.neutral_reply,
            folder=score_folder(labels),
        )
        method, scale = "follow_up", config.follow_up.scale
    else:
        assert ctx.templates.score is not None
        scores = ScoreStage(
            engine=engine,
            constitution=ctx.constitution,
            template=ctx.templates.score,
            config=config.score,
            seed=ctx.config.seed,
            run_id=run_id,
            texts=texts,
            folder=score_folder(labels),
        )
        method, scale = "score", config.score.scale
    return [
        scores,
        CompareScoresStage(
            comparisons=config.comparisons,
            scale=scale,
            method=method,
            run_id=run_id,
            scores=scores.folder,
            folder=labels,
            **compared,
        ),
    ]
