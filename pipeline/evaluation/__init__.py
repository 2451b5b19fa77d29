"""From finished shards to numbers: policies, win rates, truth of labels, summary of the data."""

from pipeline.evaluation.metrics import collect_metrics
from pipeline.evaluation.oracle import Assessment, Oracle, load_oracle
from pipeline.evaluation.results import Metrics

__all__ = ["Assessment", "Metrics", "Oracle", "collect_metrics", "load_oracle"]
