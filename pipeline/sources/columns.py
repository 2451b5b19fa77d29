"""How a file of pairwise labels is read: which column holds what, and what its labels mean."""

from typing import Self

from pydantic import model_validator

from pipeline.config.section import Section


class PairColumns(Section):
    """Which column holds what; either chosen and rejected, or first, second and label."""

    prompt: str | None = "prompt"
    """Text, or a list of messages; null when the responses are whole conversations."""
    chosen: str | None = None
    """The preferred response, or a conversation that ends with it."""
    rejected: str | None = None
    """The other response."""
    first: str | None = None
    """One response."""
    second: str | None = None
    """The other one."""
    label: str | None = None
    """Which of them is better; see `values`."""
    annotator: str | None = None
    """Who labeled the row."""
    trust: str | None = None
    """Probability that the label is right, in [0.5, 1], instead of the source's."""
    tags: str | None = None
    """Words, as a list or with commas between."""

    @model_validator(mode="after")
    def _one_way_to_tell(self) -> Self:
        ordered = (self.chosen, self.rejected)
        compared = (self.first, self.second, self.label)
        if not ((all(ordered) and not any(compared)) or (all(compared) and not any(ordered))):
            raise ValueError(
                "the columns must name either chosen and rejected, or first, second and label"
            )
        return self


def label_word(value: object) -> str:
    """A value of a label column as it is compared: text, stripped, without case."""
    return str(value).strip().casefold()


class LabelValues(Section):
    """What the label column says; compared as text, without case. No label has two meanings."""

    first: tuple[str, ...] = ("first", "a", "1")
    """The first response is better."""
    second: tuple[str, ...] = ("second", "b", "2")
    """The second response is better."""
    tie: tuple[str, ...] = ("tie", "equal", "both", "neither")
    """Neither is better: the row is dropped and counted."""

    @model_validator(mode="after")
    def _one_meaning_each(self) -> Self:
        # A list that is left out keeps its defaults, and a declared one may then contradict it.
        meanings: dict[str, str] = {}
        for meaning in ("first", "second", "tie"):
            for word in self.words(meaning):
                other = meanings.setdefault(word, meaning)
                if other != meaning:
                    raise ValueError(
                        f"'{word}' means both {other} and {meaning}, but a label needs one meaning; "
                        "declare all three of values (first, second, tie)"
                    )
        return self

    def words(self, meaning: str) -> tuple[str, ...]:
        """The labels of `first`, `second` or `tie` as they are compared."""
        return tuple(label_word(word) for word in getattr(self, meaning))
