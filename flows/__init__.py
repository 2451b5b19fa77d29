"""Prefect flows: they chain what `pipeline` does and show it; nothing in `pipeline` imports them."""

import logging

from pipeline.errors import PipelineError


class OneLinePerKnownError(logging.Filter):
    """Prints errors that the package raises on purpose as one line; bugs keep their traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true; the record loses its traceback where a person needs none."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PipelineError):
            record.msg, record.args, record.exc_info = str(error), (), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(OneLinePerKnownError())
