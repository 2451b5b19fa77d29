"""The checks of the linter: each takes drafts and yields complaints.

A draft is a principle as written, before validation: a field may be missing or of another type.
"""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pipeline.config.yaml_file import KeyPath
from pipeline.constitution import Principle
from pipeline.constitution.wording import (
    count_questions,
    likeness,
    names_a_direction,
    names_a_quality,
    words,
)

REQUESTS = ("critique_request", "revision_request", "comparison_request")


@dataclass(frozen=True)
class Draft:
    """One entry of `principles`, as written."""

    index: int
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its id, or `#n`."""
        value = self.values.get("id")
        return value if isinstance(value, str) and value else f"#{self.index + 1}"

    def text(self, key: str) -> str:
        """A request's text; empty when it is missing or no text."""
        value = self.values.get(key)
        return value.strip() if isinstance(value, str) else ""

    def tags(self) -> list[str]:
        """Its tags, as far as they are texts."""
        value = self.values.get("tags")
        return [tag for tag in value if isinstance(tag, str)] if isinstance(value, list) else []

    def unknown_keys(self) -> list[str]:
        """Keys that no principle has, such as misspelt ones."""
        return [key for key in self.values if key not in Principle.model_fields]

    def line_of(self, key: str, lines: Mapping[KeyPath, int]) -> int | None:
        """Line of a field, or of the principle."""
        own: KeyPath = ("principles", self.index)
        return lines.get((*own, key), lines.get(own))


@dataclass(frozen=True)
class Complaint:
    """A finding before it has a line."""

    draft: Draft
    key: str
    code: str
    found: str
    needed: str
    action: str


def check_present(drafts: Sequence[Draft]) -> Iterator[Complaint]:
    """Requests that are missing or empty, and ids that repeat."""
    for draft in drafts:
        for key in REQUESTS:
            if key not in draft.values:
                what = (
                    "the preference phase needs it to ask the judge"
                    if key == REQUESTS[2]
                    else "the supervised phase needs it"
                )
                close = difflib.get_close_matches(key, draft.unknown_keys(), n=1, cutoff=0.8)
                action = f"rename '{close[0]}' to '{key}'" if close else "add one"
                yield Complaint(draft, key, "missing", f"there is no {key}", what, action)
            elif isinstance(draft.values[key], str | None) and not draft.text(key):
                yield Complaint(
                    draft,
                    key,
                    "empty",
                    f"the {key} is empty",
                    "each of the three must ask something",
                    "write it or remove the principle",
                )
    first: dict[str, Draft] = {}
    for draft in drafts:
        other = first.setdefault(draft.name, draft)
        if other is not draft:
            yield Complaint(
                draft,
                "id",
                "duplicate-id",
                f"the id is also that of principle {other.index + 1}",
                "ids name rows in the lineage and must differ",
                "rename one",
            )


def check_duplicates(drafts: Sequence[Draft], threshold: float) -> Iterator[Complaint]:
    """Pairs with the same words, or with many of them.

    Compared are all three requests together and the comparison request alone: two principles with
    one comparison request get the same labels, whatever their critiques ask.
    """
    for first, second in combinations(drafts, 2):
        for what, keys in (("requests", REQUESTS), ("comparison_request", REQUESTS[2:])):
            one, two = (" ".join(draft.text(key) for key in keys) for draft in (first, second))
            equal = words(one) == words(two) != []
            alike = likeness(one, two)
            if not equal and alike < threshold:
                continue
            how = "the same words as" if equal else f"a likeness of {alike:.2f} with"
            yield Complaint(
                second,
                "id" if what == "requests" else what,
                "duplicate" if equal else "near-duplicate",
                f"the {what} {'have' if what == 'requests' else 'has'} {how} {first.name}",
                "a rule that is there twice is drawn twice as often",
                "merge the two, or say what differs; use weight to draw one more often",
            )
            break


def check_directions(drafts: Sequence[Draft]) -> Iterator[Complaint]:
    """Requests from which nobody could tell what is better."""
    for draft in drafts:
        for key in REQUESTS[:2]:
            text = draft.text(key)
            if text and not names_a_quality(text):
                yield Complaint(
                    draft,
                    key,
                    "no-direction",
                    f"the {key} names no quality ({_short(text)})",
                    "the model must learn what to look for",
                    "say which fault or quality is meant",
                )
        text = draft.text("comparison_request")
        if text and not names_a_direction(text):
            yield Complaint(
                draft,
                "comparison_request",
                "no-direction",
                f"the comparison_request names no direction ({_short(text)})",
                "the judge must know which of two responses is better",
                "ask 'Which response is more ...?'",
            )


def check_questions(drafts: Sequence[Draft]) -> Iterator[Complaint]:
    """Comparison requests that ask several things: one letter cannot answer two questions."""
    for draft in drafts:
        number = count_questions(draft.text("comparison_request"))
        if number > 1:
            yield Complaint(
                draft,
                "comparison_request",
                "several-questions",
                f"the comparison_request asks {number} questions",
                "one verdict answers one question",
                "split it into several principles",
            )


def check_lengths(
    drafts: Sequence[Draft], max_request: int, max_comparison: int
) -> Iterator[Complaint]:
    """Requests with more words than a small model can keep in mind."""
    for draft in drafts:
        for key in REQUESTS:
            limit = max_comparison if key == "comparison_request" else max_request
            number = len(words(draft.text(key)))
            if number > limit:
                yield Complaint(
                    draft,
                    key,
                    "too-long",
                    f"the {key} has {number} words",
                    f"at most {limit} are meant here",
                    "shorten it or split the principle",
                )


def check_tags(drafts: Sequence[Draft], allowed: Sequence[str] | None) -> Iterator[Complaint]:
    """Tags outside the vocabulary; without one, rare tags that look like a misspelt common one."""
    counts = Counter(tag for draft in drafts for tag in set(draft.tags()))
    for draft in drafts:
        for tag in draft.tags():
            if allowed is not None:
                if tag in allowed:
                    continue
                known, needed = list(allowed), f"known are {', '.join(allowed)}"
            else:
                known = [t for t, n in counts.most_common() if n > counts[tag]]
                needed = "a report would list it apart from the common one"
            close = difflib.get_close_matches(tag, known, n=1, cutoff=0.8)
            if allowed is None and not close:
                continue
            yield Complaint(
                draft,
                "tags",
                "unknown-tag",
                f"the tag '{tag}' is not known",
                needed,
                f"write '{close[0]}'" if close else "use one of them or add it to the vocabulary",
            )


def _short(text: str) -> str:
    return repr(text if len(text) <= 50 else text[:47] + "...")
