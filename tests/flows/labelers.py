"""Every labeler, comparison and panel that a recipe can ask for, as its `preference` section."""

from typing import Any

OTHER_JUDGE = {
    "type": "scripted",
    "script": "tests.run.scripted_world:make_engine",
    "args": {"prefers": "rude"},
}

OTHER_POLICY = {**OTHER_JUDGE, "args": {"wordy": True, "name": "other"}}

REWARDS = {"engine": {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}}

LABELERS: dict[str, dict[str, Any]] = {
    "judge": {
        "preference": {"audit": {"enabled": True, "canaries": None, "canaries_per_shard": 1}}
    },
    "judge with exemplars and chain of thought": {
        "constitution": "constitutions/balanced.yaml",
        "preference": {
            "judge": {
                "exemplars": "prompts/exemplars/general.yaml",
                "num_exemplars": 2,
                "chain_of_thought": {},
            }
        },
    },
    "several principles": {"preference": {"judge": {"num_principles": 2}}},
    "panel": {"panel": [OTHER_JUDGE]},
    "score": {"preference": {"labeler": "score"}},
    "attribute vector": {"preference": {"labeler": "score", "score": {"principles": "all"}}},
    "panel of scores": {"preference": {"labeler": "score"}, "panel": [OTHER_JUDGE]},
    "follow-ups": {"preference": {"labeler": "follow_up"}},
    "reward model": {"preference": {"labeler": "reward_model", "reward_model": REWARDS}},
    "reward model, revisions measured by the judge": {
        "judge": OTHER_JUDGE,
        "supervised": {"revise": {"rounds": 1, "efficacy": True}},
        "preference": {"labeler": "reward_model", "reward_model": REWARDS},
    },
    "efficacy": {"supervised": {"revise": {"rounds": 2, "efficacy": True}}},
    "assumed revisions": {
        "preference": {
            "comparisons": "revision_vs_initial",
            "labeler": "assumed",
            "assumed": {"label_accuracy": 0.8},
        }
    },
    "delta, assumed": {
        "policies": {"weaker": {"engine": OTHER_POLICY}},
        "preference": {
            "comparisons": "delta",
            "labeler": "assumed",
            "assumed": {"label_accuracy": 0.9},
        },
    },
    "delta of two other policies, judged": {
        "policies": {"weaker": {"engine": OTHER_POLICY}, "stronger": {"engine": OTHER_JUDGE}},
        "preference": {"comparisons": "delta"},
    },
    "best and worst of several policies": {
        "policies": {"weaker": {"engine": OTHER_POLICY, "sample": {"num_samples": 1}}},
        "preference": {"comparisons": "best_vs_worst", "sample": {"num_samples": 1}},
    },
    **{
        f"comparisons {mode}": {"preference": {"comparisons": mode, "sample": {"num_samples": 3}}}
        for mode in ("revision_vs_initial", "best_vs_worst", "all")
    },
}
"""Changes to the recipe of `tests.run.builders.write_recipe`, by name."""


def cheapest(number: int, changes: dict[str, Any]) -> dict[str, Any]:
    """The changes with no phase that this labeler does not need; the first one keeps all phases."""
    if number == 0:
        return changes
    with_revisions = changes.get("preference", {}).get("comparisons") in (
        "revision_vs_initial",
        "best_vs_worst",
        "all",
    )
    off = {"enabled": False}
    return {"evaluation": off} | ({} if with_revisions else {"supervised": off}) | changes
