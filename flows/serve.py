"""A simple alternative to a work pool: one process that serves the main and the nightly flow.

eval "$(rlaif env)" && python -m flows.serve
"""

from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.schedules import Cron

from flows.end_to_end import end_to_end
from flows.nightly import nightly

RECIPE = {"recipe": "flows/configs/demo.yaml"}
# The slug of prefect.yaml: the server refuses to update a deployment whose schedule has lost it.
NIGHT = Cron("15 2 * * *", timezone="UTC", slug="nightly")
ONE_NIGHT = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)

if __name__ == "__main__":
    # Prefect types these as a deployment or a coroutine; outside of an event loop it is the first.
    deployments: list[Any] = [
        end_to_end.to_deployment("main", parameters=RECIPE),
        nightly.to_deployment(
            "nightly", schedules=[NIGHT], parameters=RECIPE, concurrency_limit=ONE_NIGHT
        ),
    ]
    serve(*deployments, limit=1, pause_on_shutdown=False)
