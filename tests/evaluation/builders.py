"""Small runs written through the real store, with rows whose numbers a test can add up by hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.records import (
    CritiqueRow,
    JudgmentRow,
    PreferenceRow,
    PromptRow,
    ResponseRow,
    RevisionRow,
)
from pipeline.soft_labels import margin, orders_agree
from pipeline.store import RunDir
from pipeline.types import user
from tests.run.builders import make_run as make_run_folder

T = TypeVar("T")
CONSTITUTION = """\
name: small
description: three principles
principles:
  - id: harm
    critique_request: c
    revision_request: r
    comparison_request: which is harmless
    tags: [harmlessness]
  - id: help
    critique_request: c
    revision_request: r
    comparison_request: which is helpful
    tags: [helpfulness]
  - {id: tone, critique_request: c, revision_request: r, comparison_request: which is warm}
"""
RECIPE = """\
name: small
description: a synthetic run
constitution: constitution.yaml
prompts: {train: [train.jsonl], heldout: [heldout.jsonl]}
policy: {type: scripted, script: "none:none"}
evaluation: {bootstrap_draws: 200}
"""


@dataclass(frozen=True)
class WordTask:
    """A prompt that contains `evil` asks for a misdeed."""

    misdeed: bool


@dataclass(frozen=True)
class WordAssessment:
    """A response is what its words say."""

    words: frozenset[str]

    @property
    def levels(self) -> dict[str, int]:
        """`harm`, `help` and `no` are the words that count."""
        return {
            "harmlessness": int(not self.harmful),
            "helpfulness": int("help" in self.words),
            "caution": int("no" in self.words),
        }

    @property
    def harmful(self) -> bool:
        """Says harm."""
        return "harm" in self.words

    @property
    def good(self) -> bool:
        """Helps without harm."""
        return "help" in self.words and not self.harmful


class WordOracle:
    """Reads words; a text with `???` is outside its world."""

    def task(self, messages: list[dict[str, str]]) -> WordTask | None:
        """Misdeed or not."""
        text = messages[-1]["content"]
        return None if "???" in text else WordTask("evil" in text)

    def read(self, messages: list[dict[str, str]], response: str) -> WordAssessment | None:
        """The words."""
        if self.task(messages) is None or "???" in response:
            return None
        return WordAssessment(frozenset(response.split()))


def known(value: T | None) -> T:
    """A measure that must not be None."""
    assert value is not None
    return value


def make_run(folder: Path, **info: Any) -> RunDir:
    """An empty run folder with this page's recipe and constitution."""
    entries = {"name": "small", **info}
    return make_run_folder(folder, recipe_text=RECIPE, constitution_text=CONSTITUTION, **entries)


def prompt(name: str, text: str) -> PromptRow:
    """A one-turn prompt."""
    return PromptRow(row_id=name, messages=(user(text),))


def response(name: str, prompt_id: str, text: str, **fields: Any) -> ResponseRow:
    """A response of as many tokens as words."""
    values: dict[str, Any] = {"num_tokens": len(text.split()), "finish_reason": "stop"} | fields
    return ResponseRow(row_id=name, prompt_id=prompt_id, response=text, **values)


def critique(name: str, prompt_id: str, response_id: str, text: str, principle: str) -> CritiqueRow:
    """A critique of round 1."""
    return CritiqueRow(
        row_id=name,
        prompt_id=prompt_id,
        response_id=response_id,
        initial_id=response_id,
        principle_id=principle,
        critique=text,
    )


def revision(name: str, source: CritiqueRow, text: str) -> RevisionRow:
    """The revision that follows a critique."""
    return RevisionRow(
        row_id=name,
        prompt_id=source.prompt_id,
        response_id=source.response_id,
        initial_id=source.initial_id,
        critique_id=source.row_id,
        principle_id=source.principle_id,
        revision=text,
    )


def judgment(
    name: str,
    prompt_id: str,
    first: str,
    second: str,
    principle: str = "harm",
    forward: float = 0.8,
    swapped: float = 0.2,
    **fields: Any,
) -> JudgmentRow:
    """A label from the two orders' probabilities of slot A; by default 0.8 for `first`."""
    values: dict[str, Any] = {
        "comparison": "samples",
        "prob_forward": forward,
        "prob_swapped": swapped,
        "prob_first": (forward + 1 - swapped) / 2,
        "position_gap": abs(forward - (1 - swapped)),
    } | fields
    if values.get("status", "ok") != "ok":
        values |= dict.fromkeys(("prob_forward", "prob_swapped", "prob_first", "position_gap"))
    return JudgmentRow(
        row_id=name,
        prompt_id=prompt_id,
        first_id=first,
        second_id=second,
        principle_id=principle,
        **values,
    )


def pair(name: str, judged: JudgmentRow, texts: dict[str, str], reason: str = "") -> PreferenceRow:
    """The pair of a judgment; dropped when there is a reason."""
    label = judged.prob_first
    if label is None:
        return PreferenceRow(
            row_id=name,
            prompt_id=judged.prompt_id,
            judgment_id=judged.row_id,
            status="dropped",
            reason=reason,
            principle_id=judged.principle_id,
        )
    chosen, rejected = judged.first_id, judged.second_id
    if label < 0.5:
        chosen, rejected, label = rejected, chosen, 1 - label
    assert judged.prob_forward is not None and judged.prob_swapped is not None
    return PreferenceRow(
        row_id=name,
        prompt_id=judged.prompt_id,
        judgment_id=judged.row_id,
        status="dropped" if reason else "ok",
        reason=reason,
        comparison=judged.comparison,
        principle_id=judged.principle_id,
        chosen=texts[chosen],
        rejected=texts[rejected],
        chosen_id=chosen,
        rejected_id=rejected,
        soft_label=label,
        margin=margin(label),
        position_gap=judged.position_gap,
        orders_agree=orders_agree(judged.prob_forward, judged.prob_swapped),
    )
