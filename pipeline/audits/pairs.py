"""Checks that need both sides of a pair: length drift, and whether evasion is what gets preferred."""

from collections.abc import Sequence

from pipeline.audits.findings import AuditFinding, judged, skipped
from pipeline.config.audits import CollapseConfig
from pipeline.stages.phrases import AuditedText, is_evasive


def audit_evasive_lift(
    chosen: Sequence[AuditedText], rejected: Sequence[AuditedText], config: CollapseConfig
) -> AuditFinding | None:
    """Evasive share of chosen minus that of rejected, in [-1, 1]; None when the check is off."""
    bounds = (None, config.max_evasive_lift)
    if config.max_evasive_lift is None:
        return None
    if len(chosen) < config.min_prompts:
        return skipped("evasive_lift", bounds, len(chosen), _few(len(chosen), config))
    shares = [sum(is_evasive(t, config) for t in side) / len(side) for side in (chosen, rejected)]
    return judged(
        "evasive_lift",
        shares[0] - shares[1],
        bounds,
        len(chosen),
        detail=f"{shares[0]:.1%} of chosen and {shares[1]:.1%} of rejected texts are evasive",
    )


def audit_length_ratio(
    chosen: Sequence[AuditedText], rejected: Sequence[AuditedText], config: CollapseConfig
) -> AuditFinding | None:
    """Mean words of chosen over mean words of rejected; None when the check is off."""
    if config.length_ratio is None:
        return None
    words = [sum(len(t.words) for t in side) for side in (chosen, rejected)]
    if len(chosen) < config.min_prompts or not words[1]:
        return skipped("length_ratio", config.length_ratio, len(chosen), _few(len(chosen), config))
    means = [count / len(chosen) for count in words]
    return judged(
        "length_ratio",
        means[0] / means[1],
        config.length_ratio,
        len(chosen),
        detail=f"{means[0]:.1f} words in chosen, {means[1]:.1f} in rejected texts",
    )


def audit_longer_share(
    chosen: Sequence[AuditedText], rejected: Sequence[AuditedText], config: CollapseConfig
) -> AuditFinding | None:
    """Pairs whose chosen text has more words, ties half, in [0, 1]; None when the check is off.

    A model that learns "longer is better" gets this share of the pairs right without reading them.
    """
    if config.longer_share is None:
        return None
    if len(chosen) < config.min_prompts:
        return skipped("longer_share", config.longer_share, len(chosen), _few(len(chosen), config))
    lengths = [(len(c.words), len(r.words)) for c, r in zip(chosen, rejected, strict=True)]
    longer = sum(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in lengths)
    return judged(
        "longer_share",
        longer / len(chosen),
        config.longer_share,
        len(chosen),
        detail="pairs whose chosen text is the longer one, ties half",
    )


def _few(number: int, config: CollapseConfig) -> str:
    return f"{number} pairs, and at least {config.min_prompts} with some words are needed"
