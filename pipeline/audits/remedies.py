"""Ways out when a judge is unfit: what the failed figures of an audit point to. Pure.

In:  the findings of one judge
Out: the lines of the table `REMEDIES` that apply, in the order in which to try them

Does not: promise that a way out is enough. `rlaif judge-tune` measures ways of asking on labeled
pairs, and the next audit decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.audits.findings import AuditFinding

UNREAD = ("off_option", "unparsed", "canary_unparsed")
TRUTHS = ("known", "checked")
"""Figures of the share of right answers, which chance alone brings to one half."""


def _always(finding: AuditFinding) -> bool:
    return True


def _below_chance(finding: AuditFinding) -> bool:
    return finding.interval is not None and finding.interval[1] < 0.5


def _above_chance(finding: AuditFinding) -> bool:
    return finding.interval is not None and finding.interval[0] > 0.5


def _near_chance(finding: AuditFinding) -> bool:
    return not _below_chance(finding) and not _above_chance(finding)


@dataclass(frozen=True)
class Remedy:
    """What some figures show together, and what to do about it."""

    figures: tuple[str, ...]
    """It applies when one of these failed, ..."""
    sign: str
    """What they show."""
    way_out: str
    """Settings of a recipe, or another judge."""
    when: Callable[[AuditFinding], bool] = _always
    """... and its finding is like this, ..."""
    unless: tuple[str, ...] = ()
    """... and none of these failed, which would explain it better."""

    def __str__(self) -> str:
        return f"{self.sign}: {self.way_out}"


REMEDIES = (
    Remedy(
        UNREAD,
        "the judge would rather write something else than its letters",
        "begin its reply for it (`judge.reply_prefix`, such as `Response (`), or let it reason "
        "first (`judge.chain_of_thought`)",
    ),
    Remedy(
        ("slot_share", "order_disagreement", "identical"),
        "one slot wins, whatever is in it",
        "both orders cancel that and leave little else, so keep only pairs on which they agree "
        "(`pair.require_orders_agree`), show solved comparisons (`judge.exemplars`), or take "
        "another judge",
    ),
    Remedy(
        TRUTHS,
        "the judge is right less often than by chance",
        "see that the template shows the options in the order of `judge.options`, and that the "
        "requests ask for the better response",
        when=_below_chance,
        unless=UNREAD,
    ),
    Remedy(
        TRUTHS,
        "the judge is near chance",
        "let a program decide what it can (`check:` of a principle), label with people's pairs "
        "(`preference.sources`), or name a stronger judge, for example behind an endpoint "
        "(`judge: {type: openai}`)",
        when=_near_chance,
    ),
    Remedy(
        TRUTHS,
        "the judge is better than chance, but not good enough",
        "show solved comparisons (`judge.exemplars`), let it reason first "
        "(`judge.chain_of_thought`), or average a second judge (`panel`)",
        when=_above_chance,
    ),
    Remedy(
        ("padded", "longer"),
        "the judge takes length for quality",
        "say in the comparison requests that length does not count, or give a principle of length "
        "a `check:`",
    ),
    Remedy(
        ("injected",),
        "the judge obeys the texts that it reads",
        "leave `judge.defend` on, or take another judge",
    ),
    Remedy(
        ("swapped",),
        "the judge answers one question in two ways",
        "show fewer exemplars, or average more labels (`judge.num_principles`, `panel`)",
    ),
)
"""Unreadable verdicts come first: as long as they are many, the other figures rest on few."""


def remedies(findings: Sequence[AuditFinding]) -> tuple[Remedy, ...]:
    """What the failed findings of one judge point to; empty when nothing failed."""
    failed = [finding for finding in findings if finding.status == "failed"]
    names = {finding.name for finding in failed}
    return tuple(
        remedy
        for remedy in REMEDIES
        if names.isdisjoint(remedy.unless)
        and any(f.name in remedy.figures and remedy.when(f) for f in failed)
    )
