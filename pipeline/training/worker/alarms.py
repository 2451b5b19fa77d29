"""What a person should look at after a training: pure checks of its metrics and probes.

    chosen_falls    the chosen replies lose probability while the reward margin rises
                    (likelihood displacement: the policy moves to texts that were never judged)
    length_drift    replies to training prompts grew or shrank by more than a factor
    missing_end     more replies than before run into the token limit
    rows_dropped    many rows were longer than `max_length`

Does not: judge quality. A training without alarms can still be a bad one.
"""

from collections.abc import Sequence
from statistics import fmean

from pipeline.config.training import ReferenceSection, TrainingSection
from pipeline.training.job import Alarm, Probe, RowCounts
from pipeline.training.metrics import MetricsRow
from pipeline.training.worker.methods import method_of


def find_alarms(
    config: TrainingSection,
    metrics: Sequence[MetricsRow],
    rows: RowCounts,
    before: Probe | None,
    after: Probe | None,
    chosen_tokens: float,
) -> list[Alarm]:
    """All alarms of one training; `chosen_tokens` is the mean length of the chosen replies."""
    checks = [_rows_dropped(config, rows), _chosen_falls(config, metrics, chosen_tokens)]
    if before is not None and after is not None:
        checks += [_length_drift(config, before, after), _missing_end(config, before, after)]
    return [alarm for alarm in checks if alarm is not None]


def tail_mean(metrics: Sequence[MetricsRow], name: str) -> float | None:
    """Mean of a metric over the last tenth of the logged steps, at least one."""
    return _mean_of(metrics[-max(1, len(metrics) // 10) :], name)


def head_mean(metrics: Sequence[MetricsRow], name: str) -> float | None:
    """Mean of a metric over the first tenth of the logged steps, at least one."""
    return _mean_of(metrics[: max(1, len(metrics) // 10)], name)


def chosen_change(
    config: TrainingSection, metrics: Sequence[MetricsRow], chosen_tokens: float
) -> float | None:
    """Change of the chosen replies' log-probability, nats per token; None for SFT.

    With a reference it is the mean log-ratio at the end, which is free of batch noise; without
    one it is the difference between the last and the first tenth of the steps.
    """
    if isinstance(config, ReferenceSection):
        reward = tail_mean(metrics, "reward_chosen")
        return None if reward is None else reward / config.beta / max(chosen_tokens, 1.0)
    first, last = head_mean(metrics, "logp_chosen"), tail_mean(metrics, "logp_chosen")
    if first is None or last is None:
        return None
    return (last - first) / (
        1.0 if method_of(config).rewards_are_means else max(chosen_tokens, 1.0)
    )


def _mean_of(metrics: Sequence[MetricsRow], name: str) -> float | None:
    values = [row[name] for row in metrics if row.get(name) is not None]
    return fmean(values) if values else None


def _chosen_falls(
    config: TrainingSection, metrics: Sequence[MetricsRow], chosen_tokens: float
) -> Alarm | None:
    change = chosen_change(config, metrics, chosen_tokens)
    first, last = head_mean(metrics, "reward_margin"), tail_mean(metrics, "reward_margin")
    limit = config.alarms.chosen_logp_drop
    if change is None or first is None or last is None or last <= first or change >= -limit:
        return None
    return Alarm(
        name="chosen_falls",
        value=-change,
        limit=limit,
        message=(
            f"chosen replies lost {-change:.2f} nats a token while the reward margin rose to "
            f"{last:.2f}; lower the learning rate, raise beta, or stop earlier"
        ),
    )


def _length_drift(config: TrainingSection, before: Probe, after: Probe) -> Alarm | None:
    limit = config.alarms.length_ratio
    ratio = after.mean_length / max(before.mean_length, 1.0)
    if 1 / limit <= ratio <= limit:
        return None
    return Alarm(
        name="length_drift",
        value=ratio,
        limit=limit,
        message=(
            f"replies went from {before.mean_length:.0f} to {after.mean_length:.0f} tokens; "
            "compare the lengths of chosen and rejected replies in the label audit"
        ),
    )


def _missing_end(config: TrainingSection, before: Probe, after: Probe) -> Alarm | None:
    limit = before.missing_end_share + config.alarms.missing_end_share
    if after.missing_end_share <= limit:
        return None
    return Alarm(
        name="missing_end",
        value=after.missing_end_share,
        limit=limit,
        message=(
            f"{after.missing_end_share:.0%} of the probe replies have no end after "
            f"{config.alarms.probe_tokens} tokens, {before.missing_end_share:.0%} before; "
            "the policy may have collapsed, or probe_tokens is too small"
        ),
    )


def _rows_dropped(config: TrainingSection, rows: RowCounts) -> Alarm | None:
    share = rows.too_long / max(rows.too_long + rows.used, 1)
    if share <= config.alarms.dropped_share:
        return None
    return Alarm(
        name="rows_dropped",
        value=share,
        limit=config.alarms.dropped_share,
        message=(
            f"{rows.too_long} rows ({share:.0%}) are longer than max_length "
            f"({config.max_length} tokens) and were left out; raise it"
        ),
    )
