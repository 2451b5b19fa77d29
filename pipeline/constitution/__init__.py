"""A constitution: the principles under which responses are critiqued, revised and compared.

In:  a YAML file (constitutions/*.yaml)
Out: Constitution, with stable principle ids and a hash per principle for the lineage

A principle is drawn per critique and per label, with replacement and uniformly unless weights
are given, by a seed that comes from the row (Bai et al. 2022, arXiv:2212.08073; the published
chains repeat principles as drawing with replacement does).

`conflicts` names principles that cannot both decide one comparison; `priority` says which of them
does. `overrulers` is the relation that follows from both, and `labeling/conflicts.py` applies it.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.checks import CheckConfig
from pipeline.checks.contradictions import contradiction
from pipeline.config.section import Section, Title, Words, check_unique
from pipeline.config.yaml_file import load_yaml, parse_yaml, read_text
from pipeline.errors import ConfigError
from pipeline.ids import content_hash, uniforms
from pipeline.types import is_blank


class Principle(Section):
    """One rule, with the three requests that put it to work."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Names the principle in every row made under it; never reuse an id for another rule."""
    critique_request: str
    """Asks the model what is wrong with its last response under this principle."""
    revision_request: str
    """Asks the model to rewrite its response accordingly."""
    comparison_request: str
    """Asks the judge which of two responses is better under this principle."""
    weight: float = Field(1.0, gt=0)
    """How often it is drawn, relative to the others."""
    tags: tuple[Words, ...] = ()
    """Free words for grouping in reports."""
    check: CheckConfig | None = None
    """Decides by a program, instead of a model, which responses hold the principle; see
    docs/checks.md."""
    rationale: str = ""
    """Why the principle is there. Templates that have a place for it show it to critic, reviser and
    judge."""
    priority: int = Field(0, ge=-1_000_000, le=1_000_000)
    """Of two principles in conflict, the one with the higher priority decides. It does not change
    how often a principle is drawn."""
    conflicts: tuple[str, ...] = ()
    """Ids of principles that cannot decide a comparison together with this one. Naming the conflict
    in one of the two is enough; their priorities must differ."""

    @field_validator("critique_request", "revision_request", "comparison_request")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if is_blank(text):
            raise ValueError("the request is empty, but each of the three must ask something")
        return text.strip()

    @field_validator("rationale")
    @classmethod
    def _without_margins(cls, text: str) -> str:
        return "" if is_blank(text) else text.strip()

    @cached_property
    def hash(self) -> str:
        """Hash of id, requests, check and rationale, 16 hex digits; what decides how often it is
        drawn and whom it overrules does not count.

        Of a user's function it covers the name and the arguments, not the code.
        """
        requests = [self.critique_request, self.revision_request, self.comparison_request]
        check = [self.check_values] if self.check else []
        rationale = [["rationale", self.rationale]] if self.rationale else []
        return content_hash([self.id, *requests, *check, *rationale])[:16]

    @property
    def check_values(self) -> dict[str, Any] | None:
        """Name and parameters of its check, without those left at their default."""
        return self.check.model_dump(mode="json", exclude_defaults=True) if self.check else None


class Constitution(Section):
    """A named list of principles."""

    name: Title
    """Short name, used in reports and cards."""
    description: str = ""
    """One sentence on what it is for."""
    source: str = ""
    """Where the wording comes from."""
    principles: tuple[Principle, ...]
    """At least one."""

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        if not self.principles:
            raise ValueError(
                "the constitution has no principle, but at least one is needed; add one"
            )
        why = "ids name rows in the lineage, so "
        check_unique((p.id for p in self.principles), "principles have the id", why)
        return self

    @model_validator(mode="after")
    def _conflicts_can_be_resolved(self) -> Self:
        known = {p.id: p for p in self.principles}
        for principle in self.principles:
            if problem := conflict_problem(
                principle.id, principle.conflicts, {i: p.priority for i, p in known.items()}
            ):
                raise ValueError(f"conflicts of '{principle.id}' {problem}")
        return self

    @cached_property
    def hash(self) -> str:
        """Hash of all principles with their weights, in order, and of who overrules whom, 16 hex
        digits.
        """
        return content_hash(
            [[p.hash, p.weight] for p in self.principles]
            + ([self.overrulers] if self.overrulers else [])
        )[:16]

    @cached_property
    def overrulers(self) -> dict[str, list[str]]:
        """By id of a principle in conflict: the ids of those that overrule it, the highest priority
        first. Principles that none overrules are left out.
        """
        pairs = {(p.id, other) for p in self.principles for other in p.conflicts}
        pairs |= {(other, one) for one, other in pairs}
        found = {
            p.id: [
                q.id for q in self.by_priority if (p.id, q.id) in pairs and q.priority > p.priority
            ]
            for p in self.principles
        }
        return {name: above for name, above in found.items() if above}

    @cached_property
    def by_priority(self) -> tuple[Principle, ...]:
        """All principles, the highest priority first, equal ones by id."""
        return tuple(sorted(self.principles, key=lambda p: (-p.priority, p.id)))

    def consulted(self, drawn: Sequence[Principle]) -> tuple[Principle, ...]:
        """The principles that may overrule one of `drawn`, directly or through another one, without
        those that are drawn; the highest priority first.
        """
        names = {p.id for p in drawn}
        # From the lowest priority up, so that each overruler is looked at after all it overrules.
        for principle in reversed(self.by_priority):
            if principle.id in names:
                names.update(self.overrulers.get(principle.id, ()))
        drawn_ids = {p.id for p in drawn}
        return tuple(p for p in self.by_priority if p.id in names - drawn_ids)

    @cached_property
    def hash_with_tags(self) -> str:
        """`hash` and the tags, which determine the exemplars and canaries that are drawn."""
        return content_hash([self.hash, [p.tags for p in self.principles]])[:16]

    @cached_property
    def checked(self) -> tuple[Principle, ...]:
        """The principles that a program decides."""
        return tuple(p for p in self.principles if p.check)

    @cached_property
    def checks_hash(self) -> str:
        """Hash of all checks and the ids of their principles, 16 hex digits."""
        return content_hash([[p.id, p.check_values] for p in self.checked])[:16]

    @cached_property
    def judged(self) -> tuple[Principle, ...]:
        """The principles that need a model."""
        return tuple(p for p in self.principles if not p.check)

    def draw(self, *seed_parts: str | int) -> Principle:
        """One principle, drawn by seed with probability proportional to its weight."""
        return weighted_draw(self.principles, *seed_parts)[0]

    def by_id(self, principle_id: str) -> Principle:
        """The principle of that id. Raises KeyError when there is none."""
        return {p.id: p for p in self.principles}[principle_id]


def conflict_problem(name: str, conflicts: Sequence[str], priorities: Mapping[str, int]) -> str:
    """Why the conflicts of a principle cannot be resolved; empty when they can.

    Args:
        priorities: of all principles, by id.
    """
    for other in conflicts:
        if other == name:
            return "name the principle itself; name another one, or none"
        if other not in priorities:
            close = difflib.get_close_matches(other, priorities, n=1, cutoff=0.6)
            remedy = f"write '{close[0]}'" if close else "name a principle of this constitution"
            return f"name '{other}', which is not a principle here; {remedy}"
        if priorities[other] == priorities[name]:
            return (
                f"name '{other}', which has the same priority, {priorities[name]}, so that neither "
                "would decide; give one of the two a higher priority"
            )
    return ""


def weighted_draw(
    items: Sequence[Principle], *seed_parts: str | int, count: int = 1
) -> tuple[Principle, ...]:
    """`count` different principles, the first with probability proportional to its weight.

    Each principle waits for a seeded time, exponential with its weight as rate, and the earliest
    ones win. The time depends only on the seed and the principle's id, so a principle that is added
    or removed moves only the draws that it wins itself: with n of equal weight, one in n. That is
    what makes the impact of a change cheap to compute.
    """
    points = uniforms([item.id for item in items], "principle", *seed_parts)
    waiting = sorted(
        (-math.log1p(-point) / item.weight, item.id, item)
        for point, item in zip(points, items, strict=True)
    )
    return tuple(item for _, _, item in waiting[:count])


def load_constitution(path: Path) -> Constitution:
    """Read and validate a constitution.

    Raises:
        ConfigError: a mistake, with file and line; also two checks that no response can both hold.
    """
    constitution = load_yaml(path, Constitution, what="constitution")
    for one, other in combinations(constitution.checked, 2):
        if one.check and other.check and (reason := contradiction(one.check, other.check)):
            where = f"constitution {path}"
            _, lines = parse_yaml(read_text(path, where), where)
            line = lines[("principles", constitution.principles.index(other), "check")]
            raise ConfigError(
                f"{where}, line {line}: the checks of '{one.id}' and '{other.id}' contradict each "
                f"other, so that no response holds both ({reason}); change one"
            )
    return constitution
