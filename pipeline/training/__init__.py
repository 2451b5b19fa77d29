"""Training in a subprocess: `launch(TrainingJob(...))` gives a TrainingResult.

    job = TrainingJob(config=recipe.training, model=policy, dataset=pairs, output_dir=folder)
    result = await launch(job, on_progress=show)

Importing this package loads neither torch nor trl.
"""

from pipeline.training.job import Alarm, Probe, RowCounts, TrainingJob, TrainingResult
from pipeline.training.launch import launch
from pipeline.training.metrics import TrainingStep, read_metrics

__all__ = [
    "Alarm",
    "Probe",
    "RowCounts",
    "TrainingJob",
    "TrainingResult",
    "TrainingStep",
    "launch",
    "read_metrics",
]
