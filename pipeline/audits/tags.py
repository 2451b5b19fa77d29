"""Coverage of prompt tags: does a topic vanish on the way from prompts to data?"""

from collections import defaultdict
from collections.abc import Collection, Sequence

from pipeline.audits.findings import AuditFinding, judged, skipped
from pipeline.config.audits import CollapseConfig
from pipeline.records import PromptRow


def audit_tags(
    kept: Collection[str], prompts: Sequence[PromptRow], config: CollapseConfig
) -> AuditFinding | None:
    """Worst tag: share of its prompts that are left, over that share for all prompts.

    1 means that no topic loses more than the others, 0 that one is gone. None when the check is off
    or no prompts are given.
    """
    bounds = (config.min_tag_coverage, None)
    if config.min_tag_coverage is None or not prompts:
        return None
    by_tag: dict[str, list[bool]] = defaultdict(list)
    for prompt in prompts:
        for tag in set(prompt.tags):
            by_tag[tag].append(prompt.row_id in kept)
    overall = sum(prompt.row_id in kept for prompt in prompts) / len(prompts)
    judged_tags = {
        tag: sum(left) / len(left)
        for tag, left in by_tag.items()
        if len(left) >= config.min_tag_prompts
    }
    if not judged_tags or not overall:
        why = (
            "no prompt is left"
            if judged_tags
            else f"no tag has {config.min_tag_prompts} prompts or more"
        )
        return skipped("tag_coverage", bounds, len(prompts), why)
    ranked = sorted(judged_tags, key=lambda tag: (judged_tags[tag], tag))
    return judged(
        "tag_coverage",
        judged_tags[ranked[0]] / overall,
        bounds,
        len(prompts),
        detail=f"{overall:.1%} of all prompts are left; the worst tag over that",
        examples=tuple(f"{tag}: {sum(by_tag[tag])} of {len(by_tag[tag])}" for tag in ranked[:3]),
    )
