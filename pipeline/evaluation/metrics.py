"""Measure a run: all that evaluation/metrics.json holds.

Equal run folders give equal numbers: every draw is seeded by the recipe. Shards are read one at a
time; what stays in memory is a few numbers per prompt.
"""

from pipeline.config import RunConfig
from pipeline.constitution import load_constitution
from pipeline.evaluation.data_summary import measure_data, stage_metrics
from pipeline.evaluation.directions import measure_directions
from pipeline.evaluation.head_to_head import deciding_judge, win_rates
from pipeline.evaluation.label_truth import label_truth
from pipeline.evaluation.oracle import Oracle
from pipeline.evaluation.policy_measures import measure_policies
from pipeline.evaluation.results import Metrics
from pipeline.evaluation.revisions import measure_revisions
from pipeline.evaluation.scores import measure_scores
from pipeline.ids import derive_seed
from pipeline.store import RunDir, read_json
from pipeline.training.job import Alarm, HeldoutPairs


def collect_metrics(run: RunDir, config: RunConfig, oracle: Oracle | None = None) -> Metrics:
    """Measure a run, finished or not.

    Args:
        oracle: knows the truth about the run's prompts, where there is such a thing.

    Raises:
        StoreError: a shard is damaged.
    """
    seed, draws = derive_seed("bootstrap", config.seed), config.evaluation.bootstrap_draws
    tie_width = config.preference.pair.tie_width
    constitution = load_constitution(run.constitution)
    gate = config.evaluation.gate
    policies, changes = measure_policies(
        run.root,
        oracle,
        constitution,
        draws=draws,
        seed=seed,
        tags=gate.max_refused if gate else (),
    )
    conflicts = bool(constitution.overrulers)
    data, principles = measure_data(run.root, config.preference.pair, conflicts=conflicts)
    stages = stage_metrics(run.root)
    labels = label_truth(run.root, constitution, oracle) if oracle is not None else None
    seconds = {folder: stage.seconds for folder, stage in stages.items()}
    heldout, alarms = None, {}
    for name in ("sft", "preference"):
        result = read_json(run.training(name) / "result.json")
        if isinstance(result, dict) and result.get("alarms"):
            alarms[name] = tuple(map(Alarm.model_validate, result["alarms"]))
        if isinstance(result, dict) and "total_s" in result:
            seconds[f"training/{name}"] = result["total_s"]
            heldout = result.get("heldout") or heldout
    return Metrics(
        policies=policies,
        changes=changes,
        win_rates=win_rates(run.root, tie_width=tie_width, draws=draws, seed=seed),
        judge=deciding_judge(run) if config.evaluation.judge else None,
        labels=labels,
        stages=stages,
        data=data,
        principles=principles,
        scores=measure_scores(run, config),
        revisions=measure_revisions(
            run.root, tie_width, draws=draws, seed=seed, with_checks=bool(constitution.checked)
        ),
        reward_model=HeldoutPairs.model_validate(heldout) if heldout else None,
        alarms=alarms,
        directions=measure_directions(run.root, config.preference, draws=draws, seed=seed),
        seconds={name: round(value, 3) for name, value in seconds.items()},
    )
