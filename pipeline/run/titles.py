"""What a run and its phases are called where people look for them: in lists and as tags."""

from pipeline.config import RunConfig, load_config
from pipeline.store import RunDir

LEFT_OUT = "left out"
FIGURES = "figures of the data"


def run_title(run: RunDir) -> str:
    """`demo-20260101-021500-ab12`: the run's id, after the recipe's name where it lacks that."""
    name = run.info().get("name") or load_config(run.recipe).name
    return run.run_id if run.run_id.startswith(str(name)) else f"{name} · {run.run_id}"


def run_tags(run: RunDir) -> list[str]:
    """The recipe, the constitution with the first digits of its hash, and the initial policy."""
    config, info = load_config(run.recipe), run.info()
    constitution = info.get("constitution") or {}
    version = str(constitution.get("hash", ""))[:8]
    policy = getattr(config.policy, "model", config.policy.type)
    return [config.name, f"{constitution.get('name', '?')}@{version}", str(policy)]


def phase_title(config: RunConfig, phase: str) -> str:
    """What a phase does in a run, such as `supervised: sample, critique, revise, sft`."""
    return f"{phase}: {', '.join(_steps(config, phase)) or LEFT_OUT}"


def is_one_step(config: RunConfig, phase: str) -> bool:
    """Whether a phase takes no shard through a stage and trains nothing."""
    return _steps(config, phase) in ([], [FIGURES])


def _steps(config: RunConfig, phase: str) -> list[str]:
    supervised, preference = config.supervised, config.preference
    steps: list[str] = []
    if phase == "supervised" and supervised.enabled:
        rounds = supervised.revise.rounds
        critique = ["critique"] if supervised.revise.with_critique else []
        steps = ["sample", *([*critique, "revise"] if rounds else [])]
        steps += [f"{rounds} rounds"] if rounds > 1 else []
        steps += ["train sft"] if supervised.train else []
    if phase == "preference" and preference.enabled:
        steps = ["sample", f"label by {preference.labeler}", "pair"]
    if phase == "training" and preference.enabled and preference.train:
        steps = [f"train {preference.train.method}"]
    if phase == "evaluation" and config.evaluation.enabled:
        steps = ["compare policies" if config.prompts.heldout else FIGURES]
    return steps
