"""A flow run that waits for people: suspended until a person resumes it in the UI."""

from collections.abc import Sequence
from uuid import uuid4

from prefect import get_run_logger
from prefect.flow_runs import asuspend_flow_run
from prefect.runtime import deployment, flow_run

from pipeline.evaluation.gate import awaited
from pipeline.evaluation.results import Metrics
from pipeline.store import RunDir, read_json


async def wait_for_people(run: RunDir, phases: Sequence[str]) -> None:
    """Suspend the flow run where labels of people are all that keeps the policy a candidate. Its
    process ends; the one that a resume starts decides again.

    A command's flow run, which nothing would start again, and a night ends with its candidate.

    Args:
        phases: those that were run; without the evaluation nothing would be decided.
    """
    said = awaited(Metrics.model_validate(read_json(run.metrics) or {}))
    starts_again = deployment.id is not None and flow_run.parent_flow_run_id is None
    if said and starts_again and "evaluation" in phases:
        get_run_logger().info("%s or resume this flow run", said)
        # A key of its own, since a flow run may have to wait more than once.
        await asuspend_flow_run(key=uuid4().hex)
