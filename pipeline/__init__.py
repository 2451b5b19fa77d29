"""rlaif-pipeline: a constitution in, a judged preference set and a better policy out.

    run = start_run(Path("flows/configs/smoke.yaml"))
    report = asyncio.run(run_all(open_context(run)))

Names are imported when they are first used, so that `import pipeline` stays light.
"""

import importlib
from typing import Any

_HOMES = {
    "Constitution": "pipeline.constitution",
    "Engine": "pipeline.engines",
    "PipelineError": "pipeline.errors",
    "RunConfig": "pipeline.config",
    "RunDir": "pipeline.store",
    "ScriptedEngine": "pipeline.engines",
    "UserError": "pipeline.errors",
    "check_recipe": "pipeline.run.start",
    "find_run": "pipeline.run.start",
    "load_config": "pipeline.config",
    "load_constitution": "pipeline.constitution",
    "open_context": "pipeline.run.context",
    "open_engine": "pipeline.engines",
    "run_all": "pipeline.run.phases",
    "start_run": "pipeline.run.start",
    "write_report": "pipeline.report",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
