"""A small world for stage tests: a scripted model, three principles, and the chain through the
runner.

states = await run_chain(tmp_path, [*supervised(engine), *labels(engine)], num_prompts=6)
pairs = rows(tmp_path, states, "preference/pair")
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.config.labeling import Comparisons, JudgeConfig, PairConfig
from pipeline.constitution import Constitution, Principle
from pipeline.data.prompts import write_prompt_shards
from pipeline.engines import ScriptedEngine
from pipeline.ids import prompt_id
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.judge import Judge
from pipeline.labeling.judge_stage import JudgeStage
from pipeline.labeling.pair import PairStage
from pipeline.prompting.templates import JUDGE_VARIABLES, SCORE_VARIABLES, PromptTemplate
from pipeline.records import PromptRow
from pipeline.stages.base import Stage
from pipeline.stages.critique import CritiqueStage
from pipeline.stages.revise import ReviseStage
from pipeline.stages.runner import Runner
from pipeline.stages.sample import SampleStage
from pipeline.store import Manifest, read_rows
from pipeline.store.shards import stage_manifests
from pipeline.store.stage_names import INITIALS, SAMPLES
from pipeline.types import Messages, SamplingParams, user

ShardState = dict[str, Manifest]
"""Manifests of one shard by stage folder."""
CRITIQUE = "{{ principle.critique_request }}"
REVISE = "{{ principle.revision_request }}"
JUDGE = (
    "{% for m in conversation %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{{ principle.comparison_request }}\n(A) [[[{{ slot_a }}]]]\n(B) [[[{{ slot_b }}]]]"
)
LogitFunction = Callable[[str, str], float]


def make_constitution(count: int = 3) -> Constitution:
    """Principles `p-0`, `p-1`, ..."""
    return Constitution(
        name="tests",
        principles=tuple(
            Principle(
                id=f"p-{n}",
                critique_request=f"CRITIQUE {n}",
                revision_request=f"REVISE {n}",
                comparison_request=f"COMPARE {n}",
            )
            for n in range(count)
        ),
    )


def template(source: str) -> PromptTemplate:
    """A request template, or the judge's when it has slots."""
    variables = JUDGE_VARIABLES if "slot_a" in source else SCORE_VARIABLES
    return PromptTemplate.from_text("test", source, variables)


def make_prompts(count: int) -> list[PromptRow]:
    """`question 0`, `question 1`, ..."""
    return [prompt(f"question {n}") for n in range(count)]


def prompt(text: str) -> PromptRow:
    """A one-turn prompt."""
    messages = (user(text),)
    return PromptRow(row_id=prompt_id(messages), messages=messages)


def numbered_reply(messages: Messages, seed: int) -> str:
    """A reply that says which request it answers."""
    last = messages[-1].content
    kind = last.split()[0].lower() if last.split()[0] in ("CRITIQUE", "REVISE") else "answer"
    return f"{kind} {seed}"


SLOT = re.compile(r"\(([AB])\) (\w*)\[\[\[(.*?)\]\]\]\2", re.DOTALL)
"""A slot of a judge's request, with or without a fence."""


def slots(messages: Messages) -> tuple[str, str]:
    """The texts in slots A and B of the last request that shows them."""
    text = next(m.content for m in reversed(messages) if SLOT.search(m.content))
    found = {name: shown for name, _, shown in SLOT.findall(text)}
    return found["A"], found["B"]


def log_sigmoid(x: float) -> float:
    """ln(1 / (1 + exp(-x)))."""
    return -math.log1p(math.exp(-x)) if x > -30 else x


def make_engine(
    logit: LogitFunction = lambda a, b: 1.0 if a < b else -1.0,
    reply: Callable[..., str] = numbered_reply,
    **options: Any,
) -> ScriptedEngine:
    """A model whose judge gives slot A the log-odds `logit(text in A, text in B)`."""

    def scores(messages: Messages, names: Sequence[str]) -> list[float]:
        value = logit(*slots(messages))
        return [log_sigmoid(value), log_sigmoid(-value)]

    return ScriptedEngine(reply, scores, **options)


def sample(
    engine: ScriptedEngine, folder: str = "preference/sample", **changes: Any
) -> SampleStage:
    """Two samples per prompt."""
    values: dict[str, Any] = {
        "sampling": SamplingParams(max_tokens=50),
        "num_samples": 2,
        "seed": 0,
        "run_id": "r",
    }
    return SampleStage(engine=engine, folder=folder, **(values | changes))


def supervised(
    engine: ScriptedEngine,
    rounds: int = 1,
    num_samples: int = 1,
    *,
    constitution: Constitution | None = None,
    seed: int = 0,
    critique: str = CRITIQUE,
    revise: str = REVISE,
    sampling: SamplingParams = SamplingParams(max_tokens=50),
) -> list[Stage]:
    """Sample, then critique and revise."""
    source = "supervised/sample"
    stages: list[Stage] = [
        sample(engine, source, num_samples=num_samples, seed=seed, sampling=sampling)
    ]
    common: dict[str, Any] = {
        "engine": engine,
        "constitution": constitution or make_constitution(),
        "sampling": sampling,
        "seed": seed,
        "run_id": "r",
    }
    for number in range(1, rounds + 1):
        stages.append(
            CritiqueStage(template=template(critique), round=number, source=source, **common)
        )
        stages.append(
            ReviseStage(
                critique_template=template(critique),
                template=template(revise),
                round=number,
                source=source,
                **common,
            )
        )
        source = f"supervised/revise-{number}"
    return stages


def labels(
    engine: ScriptedEngine,
    comparisons: Comparisons | Literal["evaluation"] = "samples",
    *,
    rounds: int = 1,
    judge: JudgeConfig = JudgeConfig(),
    pair: PairConfig = PairConfig(),
    constitution: Constitution | None = None,
    seed: int = 0,
    source: str = JUDGE,
) -> list[Stage]:
    """Judge and pair."""
    with_samples = comparisons != "revision_vs_initial"
    with_revisions = comparisons in ("revision_vs_initial", "all")
    stage = JudgeStage(
        judge=Judge(engine, constitution or make_constitution(), template(source), judge, seed),
        compared=Compared(
            comparisons,
            samples=SAMPLES if with_samples else None,
            initials=INITIALS if with_revisions else None,
            revisions=f"supervised/revise-{rounds}" if with_revisions else None,
        ),
        run_id="r",
    )
    return [stage, PairStage(pair=pair, run_id="r", responses=stage.compared.texts)]


def make_shards(
    root: Path, prompts: int | Sequence[PromptRow] = 6, shard_size: int = 3
) -> list[ShardState]:
    """Prompts on disk."""
    found = make_prompts(prompts) if isinstance(prompts, int) else prompts
    write_prompt_shards(root, "prompts", found, shard_size, "key")
    return [{m.stage: m} for m in stage_manifests(root, "prompts")]


async def take(
    runner: Runner, shards: Sequence[ShardState], stages: Sequence[Stage]
) -> list[ShardState]:
    """Shards through the stages, by the runner; all manifests of each shard."""
    states = [dict(shard) for shard in shards]

    async def call(stage: Stage, index: int, upstream: Sequence[Manifest]) -> Manifest:
        states[index][stage.folder] = manifest = await runner.step(stage, index, upstream)
        return manifest

    await runner.wavefront(range(len(shards)), stages, call)
    return states


async def run_chain(
    root: Path,
    stages: Sequence[Stage],
    prompts: int | Sequence[PromptRow] = 6,
    *,
    shard_size: int = 3,
    **options: Any,
) -> list[ShardState]:
    """Prompts through the stages, by the runner."""
    runner = Runner(root, **({"retry_delay_s": 0.0} | options))
    return await take(runner, make_shards(root, prompts, shard_size), stages)


def rows(root: Path, states: Sequence[ShardState], folder: str) -> list[Any]:
    """All rows of a stage."""
    return [row for state in states for row in read_rows(root, state[folder])]
