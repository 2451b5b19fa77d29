"""From finished shards to numbers: policies, win rates, truth of the labels, make-up of the data."""

from pipeline.evaluation.metrics import collect_metrics
from pipeline.evaluation.oracle import Oracle, Reading, load_oracle

__all__ = ["Oracle", "Reading", "collect_metrics", "load_oracle"]
