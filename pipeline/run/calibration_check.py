"""Does a recipe's calibration belong to its judge? Asked before anything is paid for or written.

In:  a recipe with what it names
Out: nothing, or one ConfigError

Does not: connect to an endpoint. What an endpoint says is compared when it is connected.
"""

from pipeline.config import RunConfig
from pipeline.constitution import Constitution
from pipeline.engines.lazy import unopened_engine
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
    for settings in config.judge_engines:
        engine = unopened_engine(resolved_engine(settings))
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
