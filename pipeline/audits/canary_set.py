"""Canaries: comparisons whose answer is known, asked among the others to test the judge.

In:  prompts/canaries/*.yaml
Out: CanarySet, and seeded draws of a canary with a principle under which its answer holds

The file may also name the padding and the instructions with which other canaries are generated; the
defaults are the English ones of `canary_texts.yaml`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, model_validator

from pipeline.config.section import Section, check_unique
from pipeline.config.yaml_file import load_yaml
from pipeline.constitution import Constitution, Principle, weighted_draw
from pipeline.ids import content_hash, uniform
from pipeline.labeling.few_shot import Exemplar

_TEXTS = yaml.safe_load(Path(__file__).with_name("canary_texts.yaml").read_text("utf-8"))
PADDINGS: tuple[str, ...] = tuple(_TEXTS["paddings"])
INJECTIONS: tuple[str, ...] = tuple(_TEXTS["injections"])


class Canary(Exemplar):
    """One comparison with a known answer."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Names the canary in rows and reports."""
    rationale: str = ""
    """Why the answer holds, for people; the judge never reads it."""


class CanarySet(Section):
    """A named list of canaries."""

    name: str = Field(min_length=1)
    """Short name."""
    description: str = ""
    """One sentence on what it is for."""
    paddings: tuple[str, ...] = Field(PADDINGS, min_length=1)
    """Sentences that say nothing, appended to a response that must not win by them."""
    injections: tuple[str, ...] = Field(INJECTIONS, min_length=1)
    """Instructions to the judge, appended to a response that must not win by them."""
    canaries: tuple[Canary, ...] = Field(min_length=1)
    """At least one."""

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        why = "ids name them in the audit, so "
        check_unique((c.id for c in self.canaries), "canaries have the id", why)
        return self

    @property
    def hash(self) -> str:
        """Hash of all that a judge reads, and of ids and tags, which decide what it reads."""
        values = self.model_dump(mode="json", exclude={"canaries": {"__all__": {"rationale"}}})
        return content_hash([values["canaries"], values["paddings"], values["injections"]])[:16]


@dataclass(frozen=True)
class DrawnCanary:
    """One canary under one principle."""

    canary: Canary
    principle: Principle
    better_first: bool
    """True when `first` is the better response."""

    @property
    def expected(self) -> float:
        """The right label."""
        return 1.0 if self.better_first else 0.0


def draw_canaries(
    canaries: CanarySet, constitution: Constitution, count: int, *seed_parts: str | int
) -> tuple[DrawnCanary, ...]:
    """`count` canaries by seed: first a principle, by its weight, then one that holds under it.

    So each principle is tested as often as it labels. A canary is drawn twice only under different
    principles. Fewer than `count` when there are no more, none when no tag fits.
    """
    # A principle that a program decides is never put to the judge, so its canaries prove nothing.
    left = {
        principle.id: [c for c in canaries.canaries if c.holds_under(principle)]
        for principle in constitution.judged
    }
    drawn: list[DrawnCanary] = []
    while len(drawn) < count:
        with_canaries = tuple(p for p in constitution.judged if left[p.id])
        if not with_canaries:
            break
        parts = (*seed_parts, len(drawn))
        principle = weighted_draw(with_canaries, "canary", *parts)[0]
        canary = min(left[principle.id], key=lambda c: uniform("canary", c.id, *parts))
        left[principle.id].remove(canary)
        drawn.append(DrawnCanary(canary, principle, uniform("canary side", *parts) < 0.5))
    return tuple(drawn)


def load_canaries(path: Path) -> CanarySet:
    """Read and validate a canary file. Raises ConfigError with file and line."""
    return load_yaml(path, CanarySet, what="canary file")
