"""What a person should look at after a training: pure checks of its metrics and probes.

    chosen_falls    the chosen replies lose probability while the reward margin rises
                    (likelihood displacement: the policy moves to texts that were never judged)
    length_drift    replies to training prompts grew or shrank by more than a factor
    missing_end     more replies than before run into the token limit
    repeated_phrases  replies repeat themselves more than before
    divergence      the trained model is far from the one before it
    loss_spike      one step's loss is far above those before it
    unlike_reference  most chosen replies are unlike anything that the model before writes, so the
                    log-ratios say little (off-policy pairs, a wrong reference, another template)
    rows_dropped    many rows were longer than `max_length`
    unmeasured      the replies after the training could not be looked at, so that alarms which
                    they decide are missing

A loss that is not finite raises no alarm: it ends the training.

Does not: judge quality. A training without alarms can still be a bad one.
"""

from collections.abc import Sequence
from statistics import fmean, median

from pipeline.config.alarms import PROBED, AlarmConfig
from pipeline.config.training import OnlineSection, ReferenceSection, TrainingSection
from pipeline.training.job import Alarm, Familiarity, Probe, RowCounts
from pipeline.training.metrics import MetricsRow
from pipeline.training.worker.methods import method_of

SPIKE_STEPS = 8
"""Steps whose median a loss is compared with."""


def find_alarms(
    config: TrainingSection,
    metrics: Sequence[MetricsRow],
    rows: RowCounts,
    before: Probe | None,
    after: Probe | None,
    chosen_tokens: float,
    divergence: float | None = None,
    familiarity: Familiarity | None = None,
    unprobed: str = "",
) -> list[Alarm]:
    """All alarms of one training.

    Args:
        chosen_tokens: mean length of the chosen replies.
        divergence: from the model before, in nats per token.
        unprobed: why there is no probe although the settings ask for one.
    """
    limits = config.alarms
    checks = [
        _rows_dropped(config, rows),
        _chosen_falls(config, metrics, chosen_tokens),
        _divergence(config, metrics, divergence),
        _unfinished(config, metrics),
        _loss_spike(config, metrics),
        _unlike_reference(limits, familiarity),
        _unmeasured(limits, unprobed),
    ]
    if before is not None and after is not None:
        checks += [
            _length_drift(config, before, after),
            _missing_end(config, before, after),
            _repeated_phrases(limits, before, after),
        ]
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
    one, or with a fixed one, it is the difference between the last and the first tenth of the
    steps.
    """
    if isinstance(config, ReferenceSection):
        reward = tail_mean(metrics, "reward_chosen")
        if reward is not None and config.reference == "fixed":
            reward -= head_mean(metrics, "reward_chosen") or 0.0
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
            f"{100 * after.missing_end_share:.0f} % of the probe replies have no end after "
            f"{config.alarms.probe_tokens} tokens, {100 * before.missing_end_share:.0f} % before; "
            "the policy may have collapsed, or probe_tokens is too small"
        ),
    )


def _repeated_phrases(limits: AlarmConfig, before: Probe, after: Probe) -> Alarm | None:
    limit = before.repeated_share + limits.repeated_share
    if after.repeated_share <= limit:
        return None
    return Alarm(
        name="repeated_phrases",
        value=after.repeated_share,
        limit=limit,
        message=(
            f"{100 * after.repeated_share:.0f} % of the runs of four tokens in probe replies are "
            f"repetitions, {100 * before.repeated_share:.0f} % before; look for one phrase in many "
            "chosen replies, or lower the learning rate"
        ),
    )


def _divergence(
    config: TrainingSection, metrics: Sequence[MetricsRow], divergence: float | None
) -> Alarm | None:
    limit, what = config.alarms.divergence, "replies of the model before lost"
    own = tail_mean(metrics, "divergence") if isinstance(config, OnlineSection) else None
    if own is not None and own > (divergence or 0.0):
        divergence, what = own, "replies of the policy gained"
    if divergence is None or divergence <= limit:
        return None
    return Alarm(
        name="divergence",
        value=divergence,
        limit=limit,
        message=(
            f"{what} {divergence:.2f} nats a token; lower the learning rate or the number of "
            "steps, or raise beta"
        ),
    )


def _unfinished(config: TrainingSection, metrics: Sequence[MetricsRow]) -> Alarm | None:
    """Online methods: what the policy wrote during the training ends more rarely than at first."""
    first, last = head_mean(metrics, "unfinished_share"), tail_mean(metrics, "unfinished_share")
    if first is None or last is None or last <= first + config.alarms.missing_end_share:
        return None
    return Alarm(
        name="missing_end",
        value=last,
        limit=first + config.alarms.missing_end_share,
        message=(
            f"{100 * last:.0f} % of the policy's last replies reached max_tokens, "
            f"{100 * first:.0f} % of its first ones; nothing is learned from those: "
            "raise max_tokens or beta, and look for a reward that grows with length"
        ),
    )


def _loss_spike(config: TrainingSection, metrics: Sequence[MetricsRow]) -> Alarm | None:
    """The first step whose loss is far above both the first one and the median of those before;
    none for an online method, whose loss varies around 0.
    """
    limits = config.alarms
    losses = [] if isinstance(config, OnlineSection) else [row["loss"] for row in metrics]
    for i in range(1, len(losses)):
        usual = max(losses[0], median(losses[max(0, i - SPIKE_STEPS) : i]))
        if usual > 0 and losses[i] > limits.loss_spike * usual:
            return Alarm(
                name="loss_spike",
                value=losses[i] / usual,
                limit=limits.loss_spike,
                message=(
                    f"the loss rose to {losses[i]:.3g} at step {metrics[i]['step']} from about "
                    f"{usual:.3g}; lower the learning rate or max_grad_norm, and look at the rows"
                ),
            )
    return None


def _unlike_reference(limits: AlarmConfig, familiarity: Familiarity | None) -> Alarm | None:
    if familiarity is None or familiarity.chosen_beyond <= limits.unlike_reference:
        return None
    return Alarm(
        name="unlike_reference",
        value=familiarity.chosen_beyond,
        limit=limits.unlike_reference,
        message=(
            f"{100 * familiarity.chosen_beyond:.0f} % of the chosen replies are less likely "
            "under the model before than all its own samples "
            f"({familiarity.chosen:.2f} nats a token on average, its own "
            f"{familiarity.own:.2f}); train by SFT on such replies first, or use pairs of its "
            "own replies"
        ),
    )


def _unmeasured(limits: AlarmConfig, reason: str) -> Alarm | None:
    if not reason:
        return None
    return Alarm(
        name="unmeasured",
        value=0.0,
        limit=float(limits.probe_prompts),
        message=(
            f"the trained model was not probed ({reason}), so {', '.join(sorted(PROBED))} cannot "
            "be trusted to be absent; look at its replies yourself"
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
            f"{rows.too_long} rows ({100 * share:.0f} %) are longer than max_length "
            f"({config.max_length} tokens) and were left out; raise it"
        ),
    )
