"""Lint a constitution: report everything that is wrong or doubtful about it at once.

In:  a YAML file, also one that does not load
Out: LintReport: findings with principle, line, problem, what is needed, what to do

An `error` stops a run as well; a `warning` is for a person to judge. A file that is not YAML or
cannot be read raises ConfigError, because nothing can be reported about it.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pipeline.config.yaml_file import KeyPath, parse_yaml, read_text
from pipeline.constitution import Principle, conflict_problem, load_constitution
from pipeline.constitution.prose import is_draft
from pipeline.constitution.wording import (
    content_words,
    count_questions,
    likeness,
    names_a_direction,
    words,
)
from pipeline.errors import ConfigError

NEAR_DUPLICATE = 0.5
"""Least likeness (`wording.likeness`) at which two principles are called near-duplicates."""
MAX_WORDS = {
    "critique_request": 90,
    "revision_request": 90,
    "comparison_request": 45,
    "rationale": 300,
}
"""Longest text, in words; the judge reads comparison request and rationale for each label."""
REQUESTS = ("critique_request", "revision_request", "comparison_request")


@dataclass(frozen=True)
class Rule:
    """A kind of fault: how bad it is, what is needed instead, what to do."""

    severity: Literal["error", "warning"]
    needed: str
    action: str


_TWICE = Rule(
    "warning",
    "a rule that is there twice is drawn twice as often",
    "merge the two, or say what differs; use weight to draw one more often",
)
RULES = {
    "missing": Rule("error", "the supervised phase needs it", "add one"),
    "empty": Rule(
        "error", "each of the three must ask something", "write it or remove the principle"
    ),
    "duplicate-id": Rule("error", "ids name rows in the lineage and must differ", "rename one"),
    "no-principles": Rule("error", "at least one is needed", "add one under 'principles:'"),
    "conflict": Rule("error", "a conflict that can be resolved is needed", ""),
    "idle-priority": Rule(
        "warning",
        "a priority decides only between principles in conflict",
        "name the others under 'conflicts:', or remove it; weight changes how often it is drawn",
    ),
    "schema": Rule("error", "a constitution of this schema is needed", "correct it"),
    "duplicate": _TWICE,
    "near-duplicate": _TWICE,
    "draft": Rule(
        "warning", "an import quotes the heading, and a model needs a question", "write your own"
    ),
    "no-quality": Rule(
        "warning", "the model must learn what to look for", "say which fault or quality is meant"
    ),
    "no-direction": Rule(
        "warning",
        "the judge must know which of two responses is better",
        "ask 'Which response is more ...?'",
    ),
    "several-questions": Rule(
        "warning", "one verdict answers one question", "split it into several principles"
    ),
    "unknown-tag": Rule("warning", "a report would list it apart from the common one", ""),
    "too-long": Rule("warning", "", "shorten it or split the principle"),
    "cut": Rule(
        "warning",
        "YAML takes what follows ' #' for a comment, which no model reads",
        "quote the text, or end its sentence",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One fault of a file."""

    code: str
    """The rule, one of `RULES`."""
    severity: str
    principle_id: str
    """Id, or `#3` for the third principle when it has none; empty for the whole file."""
    line: int | None
    problem: str
    needed: str
    action: str

    def text(self, path: str) -> str:
        """One line for people, in the form of the loader's messages."""
        place = f"{path}, line {self.line}" if self.line else path
        name = f" {self.principle_id}:" if self.principle_id else ""
        head = f"{place}: {self.severity} [{self.code}]{name}"
        return f"{head} {self.problem}; {self.needed}; {self.action}"


@dataclass(frozen=True)
class LintReport:
    """All findings about one file, in the order of its lines."""

    path: str
    findings: tuple[Finding, ...]
    num_principles: int

    @property
    def num_errors(self) -> int:
        """Findings that keep the constitution from loading."""
        return sum(f.severity == "error" for f in self.findings)


@dataclass(frozen=True)
class Draft:
    """One entry of `principles` as written: a field may be missing or of another type."""

    index: int
    values: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    source: Sequence[str]
    """The lines of the file."""

    @property
    def name(self) -> str:
        """Its id, or `#n`."""
        value = self.values.get("id")
        return value if isinstance(value, str) and value else f"#{self.index + 1}"

    def text(self, key: str) -> str:
        """A request's text; empty when it is missing or not text."""
        value = self.values.get(key)
        return value.strip() if isinstance(value, str) else ""

    @property
    def tags(self) -> list[str]:
        """Its tags, without those that are not text."""
        return self._words("tags")

    @property
    def conflicts(self) -> list[str]:
        """The ids under `conflicts`, without those that are not text."""
        return self._words("conflicts")

    def _words(self, key: str) -> list[str]:
        value = self.values.get(key)
        return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []

    def finding(
        self, code: str, key: str, problem: str, needed: str = "", action: str = ""
    ) -> Finding:
        """A fault of one field; what is needed and what to do come from the rule by default."""
        return _finding(code, self.name, self._line(key), problem, needed, action)

    def written(self, key: str) -> str:
        """The lines from a field up to the next one, as they are in the file."""
        start = self._line(key) or 1
        end = min((line for line in self.lines.values() if line > start), default=None)
        return "\n".join(self.source[start - 1 : end and end - 1])

    def _line(self, key: str) -> int | None:
        own: KeyPath = ("principles", self.index)
        return self.lines.get((*own, key), self.lines.get(own))


def lint_constitution(path: Path) -> LintReport:
    """All findings about a file.

    Raises:
        ConfigError: the file is missing, unreadable or not YAML.
    """
    where = f"constitution {path}"
    source = read_text(path, where)
    value, lines = parse_yaml(source, where)
    listed = value.get("principles") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not listed:
        line = lines.get(("principles",))
        finding = _finding("no-principles", "", line, "there is no list of principles")
        return LintReport(str(path), (finding,), 0)
    rows = source.splitlines()
    drafts = [
        Draft(i, item, lines, rows) for i, item in enumerate(listed) if isinstance(item, dict)
    ]
    findings = [finding for check in CHECKS for finding in check(drafts)]
    if not any(f.severity == "error" for f in findings):
        findings += _loader_fault(path)
    findings.sort(key=lambda f: (f.line or 0, f.code))
    return LintReport(str(path), tuple(findings), len(drafts))


def _present(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Requests that are missing or empty."""
    for draft in drafts:
        unknown = [key for key in draft.values if key not in Principle.model_fields]
        for key in REQUESTS:
            if key not in draft.values:
                judged = key == "comparison_request"
                needed = "the preference phase needs it to ask the judge" if judged else ""
                close = difflib.get_close_matches(key, unknown, n=1, cutoff=0.8)
                action = f"rename '{close[0]}' to '{key}'" if close else ""
                yield draft.finding("missing", key, f"there is no {key}", needed, action)
            elif isinstance(draft.values[key], str | None) and not draft.text(key):
                yield draft.finding("empty", key, f"the {key} is empty")


def _unfinished(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Requests that an import of a document wrote."""
    for draft in drafts:
        for key in REQUESTS:
            if is_draft(key, draft.text(key)):
                yield draft.finding("draft", key, f"the {key} is still a draft")


def _ids(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Ids that repeat."""
    first: dict[str, Draft] = {}
    for draft in drafts:
        other = first.setdefault(draft.name, draft)
        if other is not draft:
            problem = f"the id is also that of principle {other.index + 1}"
            yield draft.finding("duplicate-id", "id", problem)


def _duplicates(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Pairs with the same words, or with many of them.

    Compares all three requests together and the comparison request alone: two principles with one
    comparison request get the same labels, whatever their critiques ask. Words that open or end a
    request in all of three or more principles, such as "Select the response that", are left out of
    the likeness: they are a frame and say nothing about two of them.
    """
    inner = {
        (key, draft.index): text
        for key in REQUESTS
        for draft, text in zip(drafts, _without_frame([d.text(key) for d in drafts]), strict=True)
    }
    for first, second in combinations(drafts, 2):
        for key, what, keys in (
            ("id", "requests have", REQUESTS),
            ("comparison_request", "comparison_request has", REQUESTS[2:]),
        ):
            one, two = (" ".join(draft.text(k) for k in keys) for draft in (first, second))
            equal = words(one) == words(two) != []
            alike = likeness(
                *(" ".join(inner[k, draft.index] for k in keys) for draft in (first, second))
            )
            if equal or alike >= NEAR_DUPLICATE:
                code = "duplicate" if equal else "near-duplicate"
                how = "the same words as" if equal else f"a likeness of {alike:.2f} with"
                yield second.finding(code, key, f"the {what} {how} {first.name}")
                break


def _without_frame(texts: Sequence[str]) -> list[str]:
    """The texts without the words that all of them begin and end with."""
    split = [text.split() for text in texts]
    if len(split) < 3 or not all(split):
        return list(texts)
    shortest = min(map(len, split))
    head = next((i for i in range(shortest) if len({w[i] for w in split}) > 1), shortest)
    left = shortest - head
    tail = next((i for i in range(left) if len({w[-1 - i] for w in split}) > 1), left)
    return [" ".join(each[head : len(each) - tail]) for each in split]


def _directions(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Requests that do not say what is better."""
    for draft in drafts:
        for key in REQUESTS:
            text = draft.text(key)
            short = repr(text if len(text) <= 50 else text[:47] + "...")
            if text and key == "comparison_request" and not names_a_direction(text):
                yield draft.finding("no-direction", key, f"the {key} names no direction ({short})")
            elif text and not content_words(text):
                yield draft.finding("no-quality", key, f"the {key} names no quality ({short})")


def _questions(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Comparison requests that ask several things: one letter cannot answer two questions."""
    key = "comparison_request"
    for draft in drafts:
        if (number := count_questions(draft.text(key))) > 1:
            yield draft.finding("several-questions", key, f"the {key} asks {number} questions")


def _lengths(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Requests with more words than a small model can keep in mind."""
    for draft in drafts:
        for key, limit in MAX_WORDS.items():
            if (number := len(words(draft.text(key)))) > limit:
                problem, needed = f"the {key} has {number} words", f"at most {limit} are meant here"
                yield draft.finding("too-long", key, problem, needed)


def _cut(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Texts without quotes whose sentence goes on behind a `#`."""
    for draft in drafts:
        for key in MAX_WORDS:
            *_, last = draft.text(key).split() or [""]
            comment = re.search(rf"{re.escape(last)}[ \t]+#[^\n]*", draft.written(key))
            if last and last[-1] not in ".!?:" and comment:
                rest = comment[0][len(last) :].strip()
                if rest not in draft.text(key):
                    problem = f"the {key} ends with '{last[-40:]}', before '{rest[:40]}'"
                    yield draft.finding("cut", key, problem)


def _tags(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Rare tags that look like a misspelled common one."""
    counts = Counter(tag for draft in drafts for tag in set(draft.tags))
    for draft in drafts:
        for tag in draft.tags:
            common = [t for t, n in counts.most_common() if n > counts[tag]]
            for close in difflib.get_close_matches(tag, common, n=1, cutoff=0.8):
                problem = f"the tag '{tag}' is not known"
                yield draft.finding("unknown-tag", "tags", problem, action=f"write '{close}'")


def _conflicts(drafts: Sequence[Draft]) -> Iterator[Finding]:
    """Conflicts that cannot be resolved, and priorities that decide nothing."""
    priorities = {d.name: p for d in drafts if isinstance(p := d.values.get("priority", 0), int)}
    in_conflict = {name for d in drafts if d.conflicts for name in (d.name, *d.conflicts)}
    for draft in drafts:
        if draft.name not in priorities:
            continue
        for other in dict.fromkeys(draft.conflicts):
            if problem := conflict_problem(draft.name, (other,), priorities):
                what, _, remedy = problem.rpartition("; ")
                yield draft.finding("conflict", "conflicts", f"the conflicts {what}", action=remedy)
        if priorities[draft.name] and draft.name not in in_conflict:
            problem = f"the priority {priorities[draft.name]} decides nothing"
            yield draft.finding("idle-priority", "priority", problem)


CHECKS = (
    _present,
    _unfinished,
    _ids,
    _duplicates,
    _directions,
    _questions,
    _cut,
    _tags,
    _lengths,
    _conflicts,
)


def _finding(
    code: str, name: str, line: int | None, problem: str, needed: str = "", action: str = ""
) -> Finding:
    rule = RULES[code]
    return Finding(
        code, rule.severity, name, line, problem, needed or rule.needed, action or rule.action
    )


def _loader_fault(path: Path) -> list[Finding]:
    """The loader's complaint when no check has one; its message is a problem and a remedy."""
    try:
        load_constitution(path)
    except ConfigError as error:
        place, _, rest = str(error).removeprefix(f"constitution {path}").partition(": ")
        digits = re.search(r"\d+", place)
        problem, _, action = rest.rpartition("; ")
        line = int(digits[0]) if digits else None
        return [_finding("schema", "", line, problem or rest, action=action if problem else "")]
    return []
