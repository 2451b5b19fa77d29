"""Everything that the phases of one run share, read from the run folder.

In:  a run folder made by `start.py`
Out: RunContext. A resumed run reads the copies in its own folder, never the originals, so that an
     edited constitution cannot slip into half of a data set.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.config import RunConfig, load_config
from pipeline.config.engines import AnyEngine, EngineConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import Constitution, load_constitution
from pipeline.engines import ENGINES
from pipeline.engines.base import Settings, StartingModel
from pipeline.errors import StoreError
from pipeline.labeling.inputs import LabelingInputs
from pipeline.run.files import RunFiles, load_files
from pipeline.stages.meter import Meter
from pipeline.stages.runner import Progress, Runner
from pipeline.store import RunDir
from pipeline.store.layout import run_beside
from pipeline.store.spending import spending

PROMOTED = "promoted"
"""Entry `gate` in run.json of a run whose policy passed its gate."""


@dataclass(frozen=True)
class RunContext:
    """What the phases of one run share."""

    run: RunDir
    config: RunConfig
    constitution: Constitution
    files: RunFiles
    runner: Runner
    progress: Progress

    @property
    def labeling(self) -> LabelingInputs:
        """Everything that the labelers need except a model."""
        return LabelingInputs(
            run_id=self.run.run_id,
            seed=self.config.seed,
            config=self.config.preference,
            constitution=self.constitution,
            templates=self.files.templates,
            files=self.files.labeling,
        )

    @property
    def reference_cache(self) -> Path:
        """Folder of cached reference log-probabilities, shared by all runs beside this one."""
        return self.run.root.parent.parent / "cache" / "reference"

    def policy_engine(self, model: Path | None = None) -> EngineConfig:
        """The engine of the initial policy, or with `model` of a policy that was trained from it.
        The initial policy of a night is the one that an earlier night promoted, if there is one.

        Args:
            model: folder of the trained policy.

        Raises:
            StoreError: the promoted policy is gone.
        """
        policy = resolved_engine(self.config.policy)
        if model is None and (before := self.run.info().get("policy_of")):
            model = promoted_model(run_beside(self.run.root.parent, str(before)))
        if model is None:
            return policy
        trained: EngineConfig = ENGINES[policy.type].with_trained(policy, model)
        return trained

    def other_policies(self) -> dict[str, EngineConfig]:
        """The engines of the further policies, by name."""
        others = self.config.policies.named
        return {name: resolved_engine(policy.engine) for name, policy in others.items()}

    def judge_engine(self) -> EngineConfig:
        """The engine of the judge, which measures revisions."""
        return resolved_engine(self.config.judge_engine)

    def evaluation_judge(self) -> EngineConfig:
        """The engine of the judge that compares policies."""
        return resolved_engine(self.config.evaluation.judge or self.config.judge_engine)

    def reward_model(self) -> StartingModel:
        """The files of the reward model that an online training raises the score of."""
        engine = self.config.preference.reward_engine
        assert engine is not None
        resolved = resolved_engine(engine)
        return ENGINES[resolved.type].starting_model(resolved)

    def label_engines(self) -> list[AnyEngine]:
        """The engines that label comparisons: the judges, or the reward model."""
        return [resolved_engine(engine) for engine in self.config.label_engines]


def promoted_model(run: RunDir) -> Path:
    """Folder of the policy that a run promoted: its last one. Raises StoreError when it is gone."""
    train = load_config(run.recipe).preference.train
    names = ("preference", "sft") if train is None or train.trains_policy else ("sft",)
    folders = [run.training(name) / "model" for name in names]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise StoreError(
        f"run {run.run_id} promoted its policy, but {folders[0]} is gone; bring it back, or set "
        f"`gate` in {run.root / 'run.json'} to candidate to begin with an earlier policy"
    )


def fixed_reference(run: RunDir) -> Path | None:
    """Folder of the model that the first round of a run's series trained from; None for the first
    round, whose own start it is.

    Raises:
        StoreError: it is gone.
    """
    first = run
    while before := first.info().get("policy_of"):
        first = run_beside(run.root.parent, str(before))
    if first.root == run.root:
        return None
    config = load_config(first.recipe)
    if config.supervised.enabled and config.supervised.train:
        folder = first.training("sft") / "model"
    else:
        policy = resolved_engine(config.policy)
        folder = ENGINES[policy.type].starting_model(policy).folder
    if not folder.is_dir():
        raise StoreError(
            f"run {run.run_id} trains with `reference: fixed` against {folder}, which is gone; "
            "bring it back, or start a new run with `reference: moving`"
        )
    return folder


def resolved_engine(engine: Settings) -> Settings:
    """The engine with absolute paths, found as `resolve_path` finds them."""
    resolved: Settings = ENGINES[engine.type].resolve(engine)
    return resolved


def open_context(run: RunDir, progress: Progress | None = None) -> RunContext:
    """Read the folder of a new or a stopped run.

    Raises:
        StoreError: it is not a run folder.
        ConfigError, TemplateError: one of its copies is damaged.
    """
    run.require()
    # Arrow's own allocator keeps the memory that each thread frees: 30 MiB more, growing all along.
    pa.set_memory_pool(pa.system_memory_pool())
    config = load_config(run.recipe)
    constitution = load_constitution(run.constitution)
    progress, execution = progress or Progress(), config.execution
    return RunContext(
        run=run,
        config=config,
        constitution=constitution,
        files=load_files(config, constitution, run),
        runner=Runner(
            run.root,
            retries=execution.retries,
            max_failed_share=execution.max_failed_share,
            shards_in_flight=execution.shards_in_flight,
            progress=progress,
            meter=_meter(run, config),
        ),
        progress=progress,
    )


def _meter(run: RunDir, config: RunConfig) -> Meter:
    """What the run has spent so far; without a budget nothing is read."""
    if not config.budget.limits or run.info().get("impact_of"):
        return Meter()
    so_far, began = spending(run, config.prices)["all"], time.monotonic()
    return Meter(
        config.budget,
        config.prices,
        so_far.tokens,
        so_far.token_money,
        seconds=lambda: so_far.seconds + time.monotonic() - began,
        run_id=run.run_id,
    )


def relative_to_project(path: Path) -> str:
    """The path relative to the project root if it is inside, else absolute, so that records stay
    true when the project moves.
    """
    try:
        return str(path.resolve().relative_to(PROJECT_ROOT))
    except ValueError:
        return str(path.resolve())
