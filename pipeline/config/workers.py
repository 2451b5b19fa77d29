"""Who makes the rows: the process of the run itself, or actors of a Ray cluster."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Section


class WorkersConfig(Section):
    """Where models run; see docs/cluster.md. None of these settings changes a row."""

    kind: Literal["local", "ray"] = "local"
    """`local`: in the process of the run. `ray`: in workers on one machine or many."""
    num: int = Field(1, ge=1, le=4096)
    """Workers of each model. Each has an engine of its own, and `execution.shards_in_flight` shards
    at a time."""
    gpus: int = Field(0, ge=0, le=64)
    """GPUs that each worker reserves; a model with `tensor_parallel_size` needs as many."""
    address: str | None = Field(None, min_length=1)
    """A running Ray cluster: `host:port`, or `auto` for the one that this machine belongs to. null
    starts Ray on this machine and stops it with the run."""

    @model_validator(mode="after")
    def _local_has_no_workers(self) -> Self:
        if self.kind == "local" and self.model_fields_set - {"kind"}:
            names = ", ".join(sorted(self.model_fields_set - {"kind"}))
            raise ValueError(
                f"'{names}' is for workers of a cluster, but execution.workers.kind is 'local'; "
                "set it to 'ray', or remove the others"
            )
        return self
