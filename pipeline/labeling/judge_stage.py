"""Judge stage: which of two responses does the judge prefer under one drawn principle?

In:  PromptRow, the responses to compare
Out: JudgmentRow: P(first is preferred), or a status that says why there is none

One principle is drawn per comparison (Bai et al. 2022, section 4), or several, each with a row of
its own. `judge.py` says how the judge is asked. A principle with a check is decided by it, without
a call; `pipeline.checks` says how.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.checks import CheckConfig, label, run_check
from pipeline.config.labeling import PreferenceConfig
from pipeline.constitution import Principle, weighted_draw
from pipeline.data.markdown import code_span
from pipeline.engines.base import Engine
from pipeline.ids import row_id
from pipeline.labeling.calibration import check_calibration
from pipeline.labeling.comparisons import Compared, Pairing, TextStage
from pipeline.labeling.inputs import LabelingInputs
from pipeline.labeling.judge import Judge
from pipeline.labeling.known_labels import check_known_labels
from pipeline.records import JudgmentRow, PromptRow
from pipeline.stages.base import Inputs, Item, Stage, dropped
from pipeline.store.stage_names import JUDGE, LABELS, nth_folder
from pipeline.types import Messages


@dataclass(frozen=True)
class JudgeStage(TextStage):
    """Labels comparisons. Two scoring calls per row, with chain of thought two generations more."""

    judge: Judge
    compared: Compared
    run_id: str
    folder: str = LABELS
    judged_only: bool = False
    """True to ask the judge alone, and draw among the principles that it decides, as its
    measurement does."""
    under: Mapping[str, tuple[Principle, ...]] = field(default_factory=dict)
    """By id of a response: the principles to ask under, instead of drawn ones."""
    consults: bool = False
    """True to ask also under the principles that may overrule the drawn ones, for `PoolStage`."""

    @property
    def engine(self) -> Engine:
        """The judge's model."""
        return self.judge.engine

    def settings(self) -> dict[str, Any]:
        """Labeling method, constitution, what is compared, and seed."""
        constitution = self.judge.constitution
        under = sorted(
            (name, "+".join(p.hash for p in asked)) for name, asked in self.under.items()
        )
        return {
            **({"under": under} if under else {}),
            **self.judge.settings(),
            "template": self.judge.template.hash_for(*constitution.principles),
            "constitution": constitution.hash_with_tags,
            "comparisons": self.compared.mode,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison and principle, prompt after prompt: the drawn ones first, then
        those that may overrule them.
        """
        return [
            self._item(prompt, pairing, principle)
            for prompt, pairing in self.compared.pairings(inputs)
            for principle in self._principles(pairing)
        ]

    def _principles(self, pairing: Pairing) -> Sequence[Principle]:
        constitution = self.judge.constitution
        if pairing.principle_id:
            return (constitution.by_id(pairing.principle_id),)
        if pairing.first.row_id in self.under:
            return self.under[pairing.first.row_id]
        sides = (pairing.first.row_id, pairing.second.row_id)
        count = self.judge.config.num_principles
        drawn_from = constitution.judged if self.judged_only else constitution.principles
        drawn = weighted_draw(drawn_from, self.judge.seed, "judge", *sides, count=count)
        above = constitution.consulted(drawn) if self.consults else ()
        return (*drawn, *(p for p in above if p in drawn_from))

    def _item(self, prompt: PromptRow, pairing: Pairing, principle: Principle) -> Item:
        first, second = pairing.first, pairing.second
        asked = self.judge.identity(first.row_id, second.row_id, principle)
        model = self.engine.fingerprint
        draft = self.judgment(
            prompt,
            pairing,
            row_id=row_id("judgment", *pairing.ids, principle.hash, asked, model),
            model_fingerprint=model,
            template_hash=self.judge.template.hash_for(principle),
            principle_id=principle.id,
            principle_hash=principle.hash,
        )
        if problem := pairing.problem:
            return dropped(draft, problem)
        texts = (first.text, second.text)
        if (check := principle.check) and not self.judged_only:
            return Item(draft, lambda: label_by_check(draft, prompt.messages, check, *texts))
        return Item(draft, lambda: self.judge.label(draft, prompt.messages, principle, *texts))


async def label_by_check(
    row: JudgmentRow, conversation: Messages, check: CheckConfig, first: str, second: str
) -> JudgmentRow:
    """The row with the label of a check. Raises CheckError when the check raised."""
    results = [run_check(check, text, conversation) for text in (first, second)]
    return replace(
        row,
        method="check",
        model_fingerprint="",
        template_hash="",
        prob_first=label(*results),
        rationales=tuple(result.reason for result in results),
    )


def make_judge(inputs: LabelingInputs, engine: Engine, number: int | None = None) -> Judge:
    """An engine as the recipe's judge.

    Args:
        number: index in the panel of a judge whose labels become pairs.

    Raises:
        ConfigError: the recipe's calibration or known labels are of another judge or method.
    """
    judge = Judge(
        engine=engine,
        constitution=inputs.constitution,
        template=inputs.templates.judge,
        config=inputs.config.judge,
        seed=inputs.seed,
        exemplars=inputs.files.exemplars,
        calibration=inputs.files.calibration,
    )
    if judge.calibration is not None:
        check_calibration(judge.calibration, engine.fingerprint, judge.method_hash)
    if number is not None and inputs.files.known_labels is not None:
        check_known_labels(inputs.files.known_labels, judge.identity_hash, number)
    return judge


def judge_stages(
    inputs: LabelingInputs, engine: Engine, compared: Compared, number: int
) -> list[Stage]:
    """Labels of one judge of the panel."""
    judge = make_judge(inputs, engine, number)
    folder = nth_folder(JUDGE, number)
    return [JudgeStage(judge, compared, inputs.run_id, folder, consults=True)]


def describe_judge(config: PreferenceConfig) -> str:
    """How a judge makes labels, for the card of a data set."""
    judge, thought = config.judge, config.judge.chain_of_thought
    a, b = map(code_span, judge.options)
    several = judge.num_principles > 1
    drawn = (
        f"{judge.num_principles} principles are drawn by seed and the judge is asked twice under "
        "each"
        if several
        else "one principle is drawn by seed and the judge is asked twice"
    )
    clamp = (
        f" and kept within {thought.clamp[0]:g} and {thought.clamp[1]:g}"
        if thought and thought.clamp
        else ""
    )
    sentences = {
        f"For each, {drawn}, with the responses in both orders.": True,
        f"{judge.num_exemplars} solved comparisons precede each question.": judge.num_exemplars,
        f"It writes a rationale first; the probabilities are read after it{clamp}.": thought,
        f"Each time the probabilities of the whole options {a} and {b} are normalized to add up to "
        "1; the soft label is the mean over both orders of what the response got.": True,
        "The labels of the principles are averaged.": several,
        "A calibration that was fitted on labeled comparisons is applied to each label.": (
            judge.calibration
        ),
        "Nothing is parsed from text, and a verdict that cannot be read is never a label (Bai et "
        "al. 2022, arXiv:2212.08073; Lee et al. 2023, arXiv:2309.00267).": True,
    }
    return " ".join(sentence for sentence, applies in sentences.items() if applies)
