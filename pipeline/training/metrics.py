"""Training metrics: TRL's names become ours, one JSON object a line, and progress lines.

    metrics.jsonl   {"step": 12, "loss": 0.64, "reward_margin": 0.31, ..., "tokens_per_s": 5120.0}
    stdout          step 12/60 loss=0.6400 reward_margin=0.3100 tokens_per_s=5120

The progress lines are for people and for `launch.py`, which reads them back.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.store.files import write_text

MetricsRow = dict[str, Any]

NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "epoch": "epoch",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "margin": "reward_margin",
    "accuracy": "reward_accuracy",
    "mean_reward": "reward_mean",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "reward": "reward",
    "completions/mean_length": "reply_tokens",
    "completions/clipped_ratio": "unfinished_share",
    "clip_ratio/region_mean": "clipped_share",
    "kl": "divergence",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
    "nll_loss": "nll",
    "log_odds_chosen": "log_odds",
    "num_tokens": "tokens",
}
"""TRL's name and ours. Rewards are beta times log-ratios, or a reward model's scores;
log-probabilities are in nats. The divergence from the reference is in nats per token for online
methods, and per reply for KTO."""

SHOWN = ("reward", "divergence", "reward_margin", "token_accuracy", "tokens_per_s")


class TrainingStep(NamedTuple):
    """One progress line, read back."""

    step: int
    num_steps: int
    loss: float


class MetricsLog:
    """Writes `metrics.jsonl` and prints progress; every line is on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[MetricsRow] = []
        self._tokens = 0.0
        self._seconds = 0.0

    def resume(self, step: int) -> None:
        """Keep the lines up to `step`; what came after the checkpoint is trained again."""
        self.rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, step: int, num_steps: int, logs: dict[str, float], seconds: float) -> MetricsRow:
        """Record one step; `seconds` counts from the start of the optimization."""
        row: MetricsRow = {"step": step}
        row |= {ours: logs[theirs] for theirs, ours in NAMES.items() if theirs in logs}
        row["seconds"] = round(seconds, 3)
        if "tokens" in row and seconds > self._seconds:
            row["tokens_per_s"] = round(
                (row["tokens"] - self._tokens) / (seconds - self._seconds), 1
            )
            self._tokens = row["tokens"]
        self._seconds = seconds
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        shown = "".join(f" {name}={row[name]:.4g}" for name in SHOWN if row.get(name) is not None)
        print(f"step {step}/{num_steps} loss={row['loss']:.4f}{shown}", flush=True)
        return row


def read_metrics(path: Path) -> list[MetricsRow]:
    """All complete lines of a metrics file, in order; a line cut by a kill is left out."""
    if not path.is_file():
        return []
    rows: list[MetricsRow] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def parse_progress(line: str) -> TrainingStep | None:
    """The numbers of a progress line, or None for any other line."""
    words = line.split()
    if len(words) < 3 or words[0] != "step" or not words[2].startswith("loss="):
        return None
    step, _, num_steps = words[1].partition("/")
    try:
        return TrainingStep(int(step), int(num_steps), float(words[2].removeprefix("loss=")))
    except ValueError:
        return None
