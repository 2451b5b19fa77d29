"""Everything that the phases of one run share, read from the run folder as it was used.

In:  a run folder made by `start.py`
Out: RunContext. A resumed run reads the copies in its own folder, never the files outside, so
     that an edited constitution cannot slip into half of a data set.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import PROJECT_ROOT, RunConfig, load_config, resolve_path
from pipeline.constitution import Constitution, load_constitution
from pipeline.engine_config import EngineConfig, VllmConfig
from pipeline.prompting import JUDGE_VARIABLES, REQUEST_VARIABLES, PromptTemplate
from pipeline.stages.runner import NoProgress, Progress, Runner
from pipeline.store import RunDir

TEMPLATE_NAMES = ("critique", "revise", "judge")


@dataclass(frozen=True)
class Templates:
    """The parsed templates of a run."""

    critique: PromptTemplate
    revise: PromptTemplate
    judge: PromptTemplate


@dataclass(frozen=True)
class RunContext:
    """What the phases of one run share."""

    run: RunDir
    config: RunConfig
    constitution: Constitution
    templates: Templates
    runner: Runner
    progress: Progress

    @property
    def reference_cache(self) -> Path:
        """Folder of cached reference log-probabilities, shared by all runs."""
        return self.run.root.parent.parent / "cache" / "reference"

    def policy_engine(self, model: Path | None = None) -> EngineConfig:
        """The engine of the initial policy, or of a policy trained from it."""
        if model is None:
            return resolved_engine(self.config.policy)
        assert isinstance(self.config.policy, VllmConfig)
        return self.config.policy.model_copy(
            update={"model": str(model), "revision": None, "adapter": None}
        )

    def judge_engine(self) -> EngineConfig:
        """The engine of the judge."""
        return resolved_engine(self.config.judge_engine)


def resolved_engine(engine: EngineConfig) -> EngineConfig:
    """The engine with its model folder below the working directory or the project root."""
    if isinstance(engine, VllmConfig):
        folder = resolve_path(Path(engine.model))
        if folder.is_dir():
            return engine.model_copy(update={"model": str(folder)})
    return engine


def open_context(run: RunDir, progress: Progress | None = None) -> RunContext:
    """Read a run folder, new or stopped.

    Raises:
        StoreError: not a run folder.
        ConfigError, TemplateError: its copies were damaged.
    """
    run.require()
    config = load_config(run.recipe)
    watcher = progress or NoProgress()
    execution = config.execution
    return RunContext(
        run=run, config=config, constitution=load_constitution(run.constitution),
        templates=load_templates({n: run.root / "templates" / f"{n}.jinja" for n in TEMPLATE_NAMES}),
        runner=Runner(
            run.root, retries=execution.retries, max_failed_share=execution.max_failed_share,
            shards_in_flight=execution.shards_in_flight, progress=watcher,
        ),
        progress=watcher,
    )


def load_templates(paths: dict[str, Path]) -> Templates:
    """Parse the three templates. Raises TemplateError."""
    return Templates(
        critique=PromptTemplate.from_file(paths["critique"], REQUEST_VARIABLES),
        revise=PromptTemplate.from_file(paths["revise"], REQUEST_VARIABLES),
        judge=PromptTemplate.from_file(paths["judge"], JUDGE_VARIABLES),
    )


def relative_to_project(path: Path) -> str:
    """The path below the project root where it is there, for records that move with the project."""
    try:
        return str(path.resolve().relative_to(PROJECT_ROOT))
    except ValueError:
        return str(path.resolve())
