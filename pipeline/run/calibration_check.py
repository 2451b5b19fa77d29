"""Does a recipe's calibration belong to its judge? Asked before anything is paid for or written.

In:  a recipe with what it names
Out: nothing, or one ConfigError

Does not: connect to an endpoint. What an endpoint says is compared when it is connected.
"""

from pipeline.config import RunConfig
from pipeline.config.engines import EngineConfig, ScriptedConfig, VllmConfig
from pipeline.constitution import Constitution
from pipeline.engines.base import Engine
from pipeline.engines.lazy import LazyEngine
from pipeline.engines.scripted import scripted_from_config
from pipeline.labeling.calibration import check_calibration
from pipeline.labeling.judge import Judge
from pipeline.prompting.templates import PromptTemplate
from pipeline.run.context import resolved_engine
from pipeline.run.labeling_files import LabelingFiles


def check_recipe_calibration(
    config: RunConfig, constitution: Constitution, template: PromptTemplate, labeling: LabelingFiles
) -> None:
    """Compare the calibration with each judge's weights and way of asking; no model is loaded.

    Raises:
        ConfigError: it was fitted for another judge or another labeling method.
    """
    if labeling.calibration is None:
        return
    for engine in map(_unopened, config.judge_engines):
        if engine is not None:
            judge = Judge(
                engine,
                constitution,
                template,
                config.preference.judge,
                config.seed,
                exemplars=labeling.exemplars,
            )
            check_calibration(labeling.calibration, engine.fingerprint, judge.method_hash)


def _unopened(config: EngineConfig) -> Engine | None:
    """An engine that knows its fingerprint; None for an endpoint."""
    engine = resolved_engine(config)
    if isinstance(engine, ScriptedConfig):
        return scripted_from_config(engine)
    return LazyEngine(engine) if isinstance(engine, VllmConfig) else None
