"""Lint a constitution: everything that is wrong or doubtful about it, at once.

In:  a YAML file, also one that does not load
Out: LintReport: findings with principle, line, what was found, what is needed, what to do

An `error` stops a run as well; a `warning` is for a person to judge. A file that is not YAML or
cannot be read raises ConfigError, as nothing can be said about it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.config.yaml_file import KeyPath, parse_yaml
from pipeline.constitution import load_constitution
from pipeline.constitution.lint_rules import (
    Draft,
    check_directions,
    check_duplicates,
    check_lengths,
    check_present,
    check_questions,
    check_tags,
)
from pipeline.errors import ConfigError

Severity = Literal["error", "warning"]
ERRORS = frozenset({"missing", "empty", "duplicate-id", "schema", "no-principles"})
"""Codes that keep a constitution from loading."""


class LintConfig(Section):
    """What counts as doubtful."""

    near_duplicate: float = Field(0.5, gt=0, le=1)
    """Least likeness (`wording.likeness`) at which two principles are called near-duplicates."""
    max_request_words: int = Field(90, ge=1)
    """Longest critique or revision request."""
    max_comparison_words: int = Field(45, ge=1)
    """Longest comparison request: the judge reads it for each label."""
    tags: tuple[str, ...] | None = None
    """Allowed tags; without them, a rare tag is compared with the common ones of the file."""


@dataclass(frozen=True)
class Finding:
    """One fault."""

    code: str
    severity: Severity
    principle_id: str
    """Id, or `#3` for the third principle when it has none; empty for the whole file."""
    line: int | None
    found: str
    needed: str
    action: str

    def text(self, path: str) -> str:
        """One line for people, in the form of the loader's messages."""
        place = f"{path}, line {self.line}" if self.line else path
        name = f" {self.principle_id}:" if self.principle_id else ""
        return f"{place}: {self.severity} [{self.code}]{name} {self.found}; {self.needed}; {self.action}"


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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """One line per finding and a count."""
        warnings = len(self.findings) - self.num_errors
        lines = [finding.text(self.path) for finding in self.findings]
        lines.append(
            f"{self.num_principles} principles, {self.num_errors} errors, {warnings} warnings"
        )
        return "\n".join(lines)


def lint_constitution(path: Path, config: LintConfig | None = None) -> LintReport:
    """All findings about a file.

    Raises:
        ConfigError: the file is missing, unreadable or not YAML.
    """
    config = config or LintConfig()
    drafts, lines, findings = _read(path)
    for check in (
        check_present(drafts),
        check_duplicates(drafts, config.near_duplicate),
        check_directions(drafts),
        check_questions(drafts),
        check_tags(drafts, config.tags),
        check_lengths(drafts, config.max_request_words, config.max_comparison_words),
    ):
        findings += [
            Finding(
                c.code,
                _severity(c.code),
                c.draft.name,
                c.draft.line_of(c.key, lines),
                c.found,
                c.needed,
                c.action,
            )
            for c in check
        ]
    if not any(f.severity == "error" for f in findings):
        findings += _loader_fault(path)
    findings.sort(key=lambda f: (f.line or 0, f.code))
    return LintReport(str(path), tuple(findings), len(drafts))


def _severity(code: str) -> Severity:
    return "error" if code in ERRORS else "warning"


def _read(path: Path) -> tuple[list[Draft], dict[KeyPath, int], list[Finding]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"constitution {path} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"constitution {path} cannot be read ({error}); it must be UTF-8"
        ) from None
    value, lines = parse_yaml(text, f"constitution {path}")
    listed = value.get("principles") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not listed:
        finding = Finding(
            "no-principles",
            "error",
            "",
            lines.get(("principles",)),
            "there is no list of principles",
            "at least one is needed",
            "add one under 'principles:'",
        )
        return [], lines, [finding]
    return (
        [Draft(index, item) for index, item in enumerate(listed) if isinstance(item, dict)],
        lines,
        [],
    )


def _loader_fault(path: Path) -> list[Finding]:
    """What the loader says and no check has said; its message has found, needed and remedy."""
    try:
        load_constitution(path)
    except ConfigError as error:
        message = str(error).removeprefix(f"constitution {path}")
        place, _, rest = message.partition(": ")
        digits = "".join(char for char in place if char.isdigit())
        found, _, action = rest.rpartition("; ")
        return [
            Finding(
                "schema",
                "error",
                "",
                int(digits) if digits else None,
                found or rest,
                "a constitution of this schema is needed",
                action if found else "correct it",
            )
        ]
    return []
