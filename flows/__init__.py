"""Prefect flows: the phases of a run as flow runs and task runs. `pipeline` never imports them."""

import logging

from pipeline.errors import PipelineError


class OneLinePerKnownError(logging.Filter):
    """A log filter that prints a PipelineError as one line; bugs keep their traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the traceback of a PipelineError; always true, so that every record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PipelineError):
            record.msg, record.args, record.exc_info = str(error), (), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(OneLinePerKnownError())
# A run continues without its server; `pipeline.prefect_server.outlive` says so, once.
logging.getLogger("prefect.events.clients").setLevel(logging.CRITICAL)
