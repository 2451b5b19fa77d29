"""Solved comparisons that precede a judge's sample (few-shot), from a YAML file.

In:  prompts/exemplars/*.yaml
Out: for each label, `count` exemplars with balanced letters, each with its own principle

Each exemplar draws its principle independently (Bai et al. 2022, section 4.1), but only from those
whose tags say that its answer holds: an exemplar that is wrong under the principle it shows would
teach the judge to ignore principles.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section
from pipeline.config.yaml_file import load_yaml
from pipeline.constitution import Constitution, Principle
from pipeline.errors import ConfigError
from pipeline.ids import content_hash, uniform
from pipeline.types import Messages, messages_from


class Turn(Section):
    """One turn of an exemplar's conversation."""

    role: str = Field(pattern="^(system|user|assistant)$")
    """`system`, `user` or `assistant`."""
    content: str = Field(min_length=1)
    """What is said."""


class Exemplar(Section):
    """One solved comparison."""

    conversation: tuple[Turn, ...] = Field(min_length=1)
    """Ends with a user turn."""
    better: str = Field(min_length=1)
    """The response that should win."""
    worse: str = Field(min_length=1)
    """The other one."""
    tags: tuple[str, ...] = ()
    """Tags of the principles under which this holds; none means all principles."""
    rationale: str = ""
    """What a careful judge would write first; `{better}` and `{worse}` become the letters."""

    @field_validator("rationale")
    @classmethod
    def _placeholders(cls, text: str) -> str:
        try:
            text.format(better="A", worse="B")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"rationale has a placeholder that is not {{better}} or {{worse}} ({error})"
            ) from None
        return text

    @model_validator(mode="after")
    def _sides_differ(self) -> Self:
        if self.conversation[-1].role != "user":
            raise ValueError("the conversation of an exemplar must end with a user turn")
        if self.better == self.worse:
            raise ValueError("better and worse are the same text; an exemplar needs two")
        return self

    @property
    def messages(self) -> Messages:
        """The conversation as messages."""
        return messages_from([turn.model_dump() for turn in self.conversation])

    def holds_under(self, principle: Principle) -> bool:
        """Whether the answer is right under this principle, as far as tags say."""
        return not self.tags or bool(set(self.tags) & set(principle.tags))


class ExemplarSet(Section):
    """A named list of exemplars."""

    name: str = Field(min_length=1)
    """Short name."""
    description: str = ""
    """One sentence on what it is for."""
    exemplars: tuple[Exemplar, ...] = Field(min_length=1)
    """At least one."""

    @property
    def hash(self) -> str:
        """Hash of all that a judge reads and of the tags, which decide what it reads."""
        return content_hash(self.model_dump(mode="json")["exemplars"])[:16]


@dataclass(frozen=True)
class Shot:
    """One exemplar as the judge sees it."""

    exemplar: Exemplar
    principle: Principle
    better_first: bool
    """True when slot A holds the better response."""

    @property
    def hash(self) -> str:
        """Hash of what is shown."""
        text = self.exemplar.model_dump(mode="json", exclude={"tags"})
        return content_hash([text, self.principle.hash, self.better_first])[:16]

    @property
    def slots(self) -> tuple[str, str]:
        """Texts of slot A and slot B."""
        pair = (self.exemplar.better, self.exemplar.worse)
        return pair if self.better_first else (pair[1], pair[0])

    def rationale(self, letters: tuple[str, str]) -> str:
        """The rationale with the letters of this order."""
        better, worse = letters if self.better_first else (letters[1], letters[0])
        return self.exemplar.rationale.format(better=better, worse=worse)


def draw_shots(
    exemplars: ExemplarSet, constitution: Constitution, count: int, *seed_parts: str | int
) -> tuple[Shot, ...]:
    """At most `count` different exemplars, drawn by seed, each with one of the principles it fits.

    The letters of the answers alternate from a drawn start: exemplars that all answer "A" teach
    the letter (Lee et al. 2023).
    """
    fitting = [
        (number, exemplar, [p for p in constitution.principles if exemplar.holds_under(p)])
        for number, exemplar in enumerate(exemplars.exemplars)
    ]
    usable = sorted(
        (item for item in fitting if item[2]),
        key=lambda item: uniform("exemplar", item[0], *seed_parts),
    )
    start = uniform("exemplar letters", *seed_parts) < 0.5
    return tuple(
        Shot(
            exemplar,
            constitution.model_copy(update={"principles": tuple(principles)}).draw(
                "exemplar", number, *seed_parts
            ),
            start if index % 2 == 0 else not start,
        )
        for index, (number, exemplar, principles) in enumerate(usable[:count])
    )


def check_exemplars(
    path: Path,
    exemplars: ExemplarSet,
    constitution: Constitution,
    count: int,
    *,
    with_rationale: bool,
) -> None:
    """Raises ConfigError when fewer than `count` exemplars can be used with this constitution."""
    usable = [
        e for e in exemplars.exemplars if any(e.holds_under(p) for p in constitution.principles)
    ]
    if len(usable) < count:
        raise ConfigError(
            f"{path} has {len(usable)} exemplars whose tags fit a principle of constitution "
            f"'{constitution.name}', but judge.num_exemplars is {count}; lower it or add exemplars"
        )
    if with_rationale and any(not e.rationale for e in usable):
        raise ConfigError(
            f"{path} has exemplars without a rationale, but the judge writes one; add them or set "
            "judge.num_exemplars to 0"
        )


def load_exemplars(path: Path) -> ExemplarSet:
    """Read and validate an exemplar file. Raises ConfigError with file and line."""
    return load_yaml(path, ExemplarSet, what="exemplar file")


def exemplar_values(shot: Shot) -> dict[str, Any]:
    """The variables of the judge template for an exemplar, except the conversation."""
    slot_a, slot_b = shot.slots
    return {"principle": shot.principle, "slot_a": slot_a, "slot_b": slot_b}
