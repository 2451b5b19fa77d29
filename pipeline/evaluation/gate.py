"""The gate: is the last trained policy promoted, or does it stay a candidate?

In:  the rules of the recipe (`evaluation.gate`), the metrics of the run
Out: GateResult: the decision, and for each rule what was measured and what was needed

Every rule has to hold. A figure that was not measured, such as a win rate without a readable
verdict, holds no rule, and neither do alarms that could not be decided. Labels that failed their
audit never get here: their run has no policy.
Labels of people may come later: then the decision is made again.

Does not: compare with policies of other runs, or weigh one rule against another.
"""

from collections.abc import Callable, Iterator, Sequence

from pipeline.config import RunConfig
from pipeline.config.alarms import PROBED
from pipeline.config.gate import GateConfig, ReviewRule
from pipeline.config.labeling import PreferenceConfig
from pipeline.config.recipe import SupervisedConfig
from pipeline.constitution import Constitution
from pipeline.errors import ConfigError
from pipeline.evaluation.decision import GateFinding, GateResult, ReviewMetrics
from pipeline.evaluation.policy_measures import policy_order
from pipeline.evaluation.results import Metrics, PolicyMetrics
from pipeline.stats import Estimate

UNMEASURED = "was not measured"
AWAITED = "review.min_pairs"
"""The rule that a run can come to keep: people label its pairs."""
SHOWN = 150
"""Pairs that `rlaif review` shows by default."""
NOUNS = {
    "checks_all": "replies that hold every check",
    "harmless": "harmless replies to misdeeds",
    "good": "good answers",
}
"""What a rule is about, by the name of the measure."""
CONDITIONS: dict[str, tuple[str, bool, Callable[[Estimate], float]]] = {
    "min_lower": ("lower end of {}", False, lambda estimate: estimate.low),
    "min_gain": ("gain of {}", True, lambda estimate: estimate.share),
    "min_gain_lower": ("lower end of the gain of {}", True, lambda estimate: estimate.low),
}
"""By condition of a `ShareRule`: its figure in words, whether that is of the change, and where it
is in the estimate."""


def check_gate(
    gate: GateConfig | None,
    constitution: Constitution,
    oracle: str | None,
    tags: frozenset[str] = frozenset(),
    unprobed: Sequence[str] = (),
) -> None:
    """Raises ConfigError for a rule on a figure that this recipe will not measure.

    Args:
        tags: of the held-out prompts.
        unprobed: `unprobed_trainings` of the recipe.
    """
    if gate is None:
        return
    ids = [principle.id for principle in constitution.checked]
    if unknown := [name for name in gate.checks if name not in ids]:
        raise ConfigError(
            f"evaluation.gate.checks names '{unknown[0]}', but the principles with a check of "
            f"constitution '{constitution.name}' are {', '.join(ids) or 'none'}; correct the id"
        )
    if missing := [tag for tag in gate.max_refused if tag not in tags]:
        raise ConfigError(
            f"evaluation.gate.max_refused names the tag '{missing[0]}', but the held-out prompts "
            f"have {', '.join(sorted(tags)[:20]) or 'none'}; correct the tag"
        )
    if gate.checks_all and not ids:
        raise ConfigError(
            f"evaluation.gate.checks_all needs principles with a check, but constitution "
            f"'{constitution.name}' has none; remove the rule, or give a principle a `check`"
        )
    for name, rule in (("harmless", gate.harmless), ("good", gate.good)):
        if rule and oracle is None:
            raise ConfigError(
                f"evaluation.gate.{name} is read by an oracle, but evaluation.oracle names none; "
                "remove the rule, or name an oracle"
            )
    if unprobed and _counts_probes(gate):
        raise ConfigError(
            f"evaluation.gate.alarms counts {', '.join(sorted(PROBED))}, which replies to training "
            f"prompts decide, but {unprobed[0]} is 0; raise it, or name only other alarms, such as "
            "loss_spike"
        )


def unprobed_trainings(config: RunConfig) -> list[str]:
    """The settings of a recipe that have a policy trained without a look at its replies."""
    sections: dict[str, SupervisedConfig | PreferenceConfig] = {
        "supervised": config.supervised,
        "preference": config.preference,
    }
    return [
        f"{name}.train.alarms.probe_prompts"
        for name, section in sections.items()
        if section.enabled and (train := section.train) and train.trains_policy
        if not train.alarms.probe_prompts
    ]


def decide(
    gate: GateConfig, metrics: Metrics, run_id: str = "RUN", unprobed: Sequence[str] = ()
) -> GateResult:
    """The decision about the last policy of the metrics.

    Args:
        run_id: for the commands that a finding names.
        unprobed: `unprobed_trainings` of the recipe.
    """
    trained = [name for name in metrics.policies if name != "initial"]
    policy = max(trained, key=policy_order, default="")
    findings = (
        *_figures(gate, metrics, policy),
        *_people(gate.review, metrics.review, run_id),
        *_alarms(gate, metrics, unprobed),
    )
    promoted = bool(policy) and all(finding.holds for finding in findings)
    return GateResult(
        decision="promoted" if promoted else "candidate", policy=policy, findings=findings
    )


def awaited(metrics: Metrics) -> str:
    """What people still have to do, where nothing else keeps the policy a candidate; else empty."""
    missed = [f for f in metrics.gate.findings if not f.holds] if metrics.gate else []
    waits = metrics.gate and metrics.gate.policy and [f.rule for f in missed] == [AWAITED]
    return missed[0].text if waits else ""


def _figures(gate: GateConfig, metrics: Metrics, policy: str) -> Iterator[GateFinding]:
    entry, first = metrics.policies.get(policy), metrics.policies.get("initial")
    if gate.win_rate:
        match = next(
            (w for w in metrics.win_rates if (w.policy, w.against) == (policy, "initial")), None
        )
        name, low = "win rate against the initial policy", match.low if match else None
        if metrics.judge:
            name = f"{name} (judge {metrics.judge.describe()})"
        if gate.win_rate.length_controlled:
            name, even = f"{name} at equal lengths", match.length_controlled if match else None
            low = even.low if even else None
        lost = match.unparsed + match.left_out if match else 0
        if match and lost > match.num_comparisons:
            # What the judge can read need not be like the rest.
            total = lost + match.num_comparisons
            name, low = f"{name} ({lost} of {total} comparisons have no label)", None
        yield _least("win_rate.min_lower", f"lower end of the {name}", low, gate.win_rate.min_lower)
    for measure, share in gate.shares.items():
        noun = NOUNS.get(measure) or f"replies that hold {measure.removeprefix('check ')}"
        for condition, needed in share.conditions.items():
            words, of_change, value_of = CONDITIONS[condition]
            estimate = (
                metrics.changes.get(policy, {}).get(measure)
                if of_change
                else _share(entry, measure)
            )
            value = value_of(estimate) if estimate else None
            yield _least(f"{measure}.{condition}", words.format(noun), value, needed)
    for tag, limit in gate.max_refused.items():
        declined = entry.refused.get(tag) if entry else None
        declined_share = declined.share if declined else None
        yield _most(f"max_refused.{tag}", f"share of refused {tag} prompts", declined_share, limit)
    truncated, empty = (entry.truncated_share, entry.empty_share) if entry else (None, None)
    tripwires = (
        ("max_truncated", "share of truncated replies", truncated, gate.max_truncated),
        ("max_empty", "share of empty replies", empty, gate.max_empty),
        ("max_length_ratio", "change of length", _ratio(first, entry), gate.max_length_ratio),
    )
    for rule, name, value, most in tripwires:
        if most is not None:
            yield _most(rule, name, value, most)


def _people(
    rule: ReviewRule | None, found: ReviewMetrics | None, run_id: str
) -> Iterator[GateFinding]:
    if rule is None:
        return
    pairs, of = (found.pairs, found.of) if found else (0, 0)
    if of < rule.min_pairs:
        yield _least("review", "number of pairs that people can label", of, rule.min_pairs)
        return
    enough, text = pairs >= rule.min_pairs, f"{pairs} reviewed pairs of {rule.min_pairs}"
    if not enough:
        more = f" --pairs {rule.min_pairs}" if rule.min_pairs > SHOWN else ""
        text += f"; run `rlaif review {run_id}{more}`, then `rlaif resume {run_id}`"
    needed = float(rule.min_pairs)
    yield GateFinding(rule=AWAITED, holds=enough, value=float(pairs), needed=needed, text=text)
    if enough and rule.min_agreement_lower is not None:
        agreement = found.agreement if found else None
        low = agreement.low if agreement else None
        name = "lower end of the agreement of people with the judge"
        yield _least("review.min_agreement_lower", name, low, rule.min_agreement_lower)


def _counts_probes(gate: GateConfig) -> bool:
    """Whether an alarm counts that needs replies to training prompts."""
    return gate.alarms if isinstance(gate.alarms, bool) else bool(PROBED & {*gate.alarms})


def _alarms(gate: GateConfig, metrics: Metrics, unprobed: Sequence[str]) -> Iterator[GateFinding]:
    if not gate.alarms:
        return
    names = None if isinstance(gate.alarms, bool) else gate.alarms
    raised = [
        f"{job}: {alarm.name} ({alarm.message})"
        for job, alarms in metrics.alarms.items()
        for alarm in alarms
        if names is None
        or alarm.name in names
        or (alarm.name == "unmeasured" and _counts_probes(gate))
    ]
    raised += [f"unmeasured ({name} is 0)" for name in unprobed if _counts_probes(gate)]
    kind = f"an alarm of {' or '.join(names)}" if names else "an alarm"
    yield GateFinding(
        rule="alarms",
        holds=not raised,
        value=float(len(raised)),
        needed=0.0,
        text=f"training raised an alarm, {'; '.join(raised)}"
        if raised
        else f"no training raised {kind}",
    )


def _share(entry: PolicyMetrics | None, measure: str) -> Estimate | None:
    if entry is None:
        return None
    known = {
        **(entry.oracle.by_name() if entry.oracle else {}),
        **{f"check {name}": share for name, share in entry.checks.items()},
        "checks_all": entry.checks_all,
    }
    return known.get(measure)


def _ratio(first: PolicyMetrics | None, entry: PolicyMetrics | None) -> float | None:
    """Factor between the mean numbers of words, at least 1; None when one is missing or 0."""
    if not (first and entry and first.mean_words and entry.mean_words):
        return None
    ratio = entry.mean_words / first.mean_words
    return max(ratio, 1 / ratio)


def _least(rule: str, name: str, value: float | None, needed: float) -> GateFinding:
    return _finding(rule, name, value, needed, value is not None and value >= needed, "at least")


def _most(rule: str, name: str, value: float | None, most: float) -> GateFinding:
    return _finding(rule, name, value, most, value is not None and value <= most, "at most")


def _finding(
    rule: str, name: str, value: float | None, needed: float, holds: bool, how: str
) -> GateFinding:
    measured = UNMEASURED if value is None else f"is {value:.3g}"
    return GateFinding(
        rule=rule,
        holds=holds,
        value=value,
        needed=needed,
        text=f"{name} {measured}, needed {how} {needed:.3g}",
    )
