"""Follow-ups: what pleased and displeased users say next, and a reward from how likely that is.

In:  prompts/follow_ups/*.yaml, and L(u | c, y) of each follow-up u to a response y in context c
Out: R(c, y) = mean_d [ mean_{u in P_d} L(u | c, y) - mean_{u in N_d} L(u | c, y) ]

L is the MEAN log-probability of the follow-up's tokens (nats per token); P_d and N_d are the
pleased and the displeased follow-ups of category d. A sum would prefer short follow-ups, and a
constant added to all tokens of a context would not cancel.

Source: follow-up likelihood as reward (Zhang et al. 2024, arXiv:2409.13948). That this is the exact
form of the paper is from memory; the authors' released scorer is something else (docs/labelers.md).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section, check_unique
from pipeline.config.yaml_file import load_yaml
from pipeline.ids import content_hash


class FollowUpCategory(Section):
    """One quality of a response, and what users say who find it or miss it."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Short name, such as `relevance`."""
    positive: tuple[str, ...] = Field(min_length=1)
    """What a pleased user says next."""
    negative: tuple[str, ...] = Field(min_length=1)
    """What a displeased user says next."""

    @field_validator("positive", "negative")
    @classmethod
    def _says_something(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        if any(not sentence.strip() for sentence in sentences):
            raise ValueError("a follow-up is empty, but each must say something")
        return tuple(sentence.strip() for sentence in sentences)

    @model_validator(mode="after")
    def _sides_differ(self) -> Self:
        if both := set(self.positive) & set(self.negative):
            raise ValueError(
                f"follow-up {min(both)!r} is positive and negative, so it cancels; keep one"
            )
        return self

    @property
    def sentences(self) -> tuple[str, ...]:
        """All follow-ups, the positive ones first."""
        return self.positive + self.negative


class FollowUpSet(Section):
    """A named list of categories."""

    name: str = Field(min_length=1)
    """Short name."""
    description: str = ""
    """One sentence on what it is for and where the wording comes from."""
    categories: tuple[FollowUpCategory, ...] = Field(min_length=1)
    """At least one."""

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        check_unique((category.id for category in self.categories), "categories have the id")
        return self

    @property
    def hash(self) -> str:
        """Hash of all sentences and ids, in order."""
        return content_hash(self.model_dump(mode="json")["categories"])[:16]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All follow-ups in the order in which they are asked."""
        return tuple(s for category in self.categories for s in category.sentences)

    @property
    def num_repeated(self) -> int:
        """Number of sentences that repeat an earlier one of their list."""
        lists = [side for c in self.categories for side in (c.positive, c.negative)]
        return sum(len(side) - len(set(side)) for side in lists)

    def without_repeats(self) -> "FollowUpSet":
        """A copy with each sentence once per list, where it comes first."""
        return self.model_copy(
            update={
                "categories": tuple(
                    c.model_copy(
                        update={
                            "positive": tuple(dict.fromkeys(c.positive)),
                            "negative": tuple(dict.fromkeys(c.negative)),
                        }
                    )
                    for c in self.categories
                )
            }
        )


def load_follow_ups(path: Path) -> FollowUpSet:
    """Read and validate a follow-up file. Raises ConfigError with file and line."""
    return load_yaml(path, FollowUpSet, what="follow-up file")


def mean_logprob(total: float, num_tokens: int) -> float:
    """L in nats per token; NaN for a text without tokens."""
    return total / num_tokens if num_tokens else math.nan


def category_values(follow_ups: FollowUpSet, likelihoods: Sequence[float]) -> tuple[float, ...]:
    """Mean L of the positive minus mean L of the negative follow-ups, for each category.

    Args:
        likelihoods: L of each of `follow_ups.sentences`, nats per token.
    """
    if len(likelihoods) != len(follow_ups.sentences):
        raise ValueError(
            f"{len(likelihoods)} likelihoods for {len(follow_ups.sentences)} follow-ups"
        )
    rest, values = list(likelihoods), []
    for category in follow_ups.categories:
        positive, rest = rest[: len(category.positive)], rest[len(category.positive) :]
        negative, rest = rest[: len(category.negative)], rest[len(category.negative) :]
        values.append(fmean(positive) - fmean(negative))
    return tuple(values)


def follow_up_reward(values: Sequence[float]) -> float:
    """R: the mean over categories, nats per token."""
    return fmean(values)
