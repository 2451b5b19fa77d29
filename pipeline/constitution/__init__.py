"""A constitution: the principles under which responses are critiqued, revised and compared.

In:  a YAML file (constitutions/*.yaml)
Out: Constitution, with stable principle ids and a hash per principle for the lineage

A principle is drawn per critique and per label, with replacement and uniformly unless weights
are given, by a seed that comes from the row (Bai et al. 2022, arXiv:2212.08073; the published
chains repeat principles as drawing with replacement does).
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.checks import CheckConfig
from pipeline.checks.contradictions import contradiction
from pipeline.config.section import Section, Title, Words
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

    @field_validator("critique_request", "revision_request", "comparison_request")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if is_blank(text):
            raise ValueError("the request is empty, but each of the three must ask something")
        return text.strip()

    @cached_property
    def hash(self) -> str:
        """Hash of id, requests and check, 16 hex digits; weight and tags do not count.

        Of a user's function it covers the name and the arguments, not the code.
        """
        requests = [self.critique_request, self.revision_request, self.comparison_request]
        return content_hash([self.id, *requests, *([self.check_values] if self.check else [])])[:16]

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
        repeated = [i for i, n in Counter(p.id for p in self.principles).items() if n > 1]
        if repeated:
            raise ValueError(
                f"two principles have the id '{repeated[0]}'; ids name rows in the lineage, so "
                "rename one"
            )
        return self

    @cached_property
    def hash(self) -> str:
        """Hash of all principles with their weights, in order, 16 hex digits."""
        return content_hash([[p.hash, p.weight] for p in self.principles])[:16]

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
