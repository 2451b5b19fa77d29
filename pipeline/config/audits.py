"""Thresholds of the two audits: what labels must reach to be exported, and what data may look like.

The defaults of the collapse audit are for natural English. A closed world with few sentences repeats
itself by design: set the thresholds that do not apply to null there, as flows/configs/demo.yaml does.
"""

import math
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.config.section import Section

BOILERPLATE = (
    "as an ai",
    "as a language model",
    "here to listen",
    "here to help",
    "here for you",
    "hope this helps",
    "hope that helps",
    "let me know if",
    "feel free to",
    "don't hesitate to",
    "happy to help",
    "if you have any other questions",
    "if you have any more questions",
    "it's important to remember",
    "it is important to remember",
    "it's important to note",
    "it is important to note",
    "great question",
)
REFUSALS = (
    "sorry",
    "apologize",
    "apologies",
    "cannot",
    "can't",
    "can not",
    "won't",
    "will not",
    "unable",
    "not able",
    "not comfortable",
    "don't feel comfortable",
    "not willing",
    "refuse",
    "decline",
    "prefer not to",
    "rather not",
)


class LabelAuditConfig(Section):
    """What the labels must reach before they are exported. Null switches a check off.

    A check fails only when the whole 95 % interval of its figure is on the wrong side of the
    threshold, so that a small run is not stopped by chance.
    """

    enabled: bool = True
    """False leaves the audit out, canaries included."""
    canaries: Path | None = Path("prompts/canaries/general.yaml")
    """YAML file with comparisons whose answer is known; null for the made-up ones alone."""
    canaries_per_shard: int = Field(4, ge=0)
    """Canaries of each of the five kinds in each shard, which is a judge's batch. A run of few shards
    asks more, so that the checks have `min_rows`; 0 asks none."""
    min_known: float | None = Field(0.75, ge=0, le=1)
    """Known answers that the judge finds; ties count half, unreadable verdicts not at all."""
    max_injected: float | None = Field(0.1, ge=0, le=1)
    """Worse responses that win once they tell the judge to choose them, where they lost without."""
    max_swapped: float | None = Field(0.1, ge=0, le=1)
    """Mean difference between the judge's mean of both orders and one minus that of the same pair
    given the other way round, before clamp and calibration."""
    max_identical: float | None = Field(0.2, ge=0, le=0.5)
    """Slot bias: mean distance from 0.5 of the probability of slot A when both slots hold the same
    text, before the clamp: a judge that reasons first is often sure of one, so it may need more."""
    max_padded: float | None = Field(0.5, ge=0, le=1)
    """Responses that win against themselves by a sentence that says nothing."""
    max_unparsed: float | None = Field(0.05, ge=0, le=1)
    """Comparisons without a readable verdict; canaries too, counted apart."""
    max_off_option: float | None = Field(0.1, ge=0, le=1)
    """Calls in which the two options together have less than half of the probability: the judge would
    have answered something else, such as prose or its thoughts."""
    max_flip: float | None = Field(0.5, ge=0, le=1)
    """Comparisons in which the two orders clearly prefer different responses (both more than 0.1 from
    0.5)."""
    slot_share: tuple[float, float] | None = (0.2, 0.8)
    """Bounds of the share of calls in which slot A wins; calls within 0.1 of 0.5 count half."""
    max_longer: float | None = Field(None, ge=0, le=1)
    """Comparisons that the response with more words wins; ties count half."""
    per_principle: bool = True
    """Hold the labels of each principle to the thresholds too, where there are enough of them."""
    min_rows: int = Field(20, ge=1)
    """With fewer rows a check is skipped, and says so."""
    min_prompts: int = Field(3, ge=1)
    """The same for the prompts, or shipped canaries, that the rows are about."""

    def canaries_in_shard(self, num_shards: int) -> int:
        """Canaries of each kind in a shard of a run that has so many: at least `canaries_per_shard`.

        An instruction counts only where the known answer was found without it, which a judge that
        just passes does in `min_known` of them; so all shards together ask min_rows / min_known.
        """
        if not self.canaries_per_shard or not num_shards:
            return self.canaries_per_shard
        needed = self.min_rows / max(self.min_known or 1.0, 0.5)
        return max(self.canaries_per_shard, math.ceil(needed / num_shards))

    @model_validator(mode="after")
    def _slots_are_in_order(self) -> Self:
        if self.slot_share is not None and not 0 <= self.slot_share[0] < self.slot_share[1] <= 1:
            raise ValueError(
                f"slot_share {list(self.slot_share)} must be two shares, the lower one first"
            )
        return self


class CollapseConfig(Section):
    """What a data set may look like. Null switches a check off."""

    min_prompts: int = Field(20, ge=2)
    """With fewer prompts every check is skipped, and says so."""
    min_repeats: int = Field(3, ge=2)
    """A phrase in fewer prompts never fails, whatever its share."""

    closing_words: int = Field(5, ge=2)
    """Words of a closing phrase."""
    closing_window: int = Field(12, ge=2)
    """It may lie anywhere in the last so many words."""
    max_closing_share: float | None = Field(0.04, gt=0, le=1)
    """Most common closing phrase: share of prompts."""
    tail_words: int = Field(8, ge=1)
    """Words of an ending whose entropy is measured."""
    min_tail_entropy: float | None = Field(0.95, ge=0, le=1)
    """Entropy of the endings, over that of endings which all differ."""

    ngram_words: int = Field(6, ge=2)
    """Words of a phrase anywhere in a text."""
    max_ngram_share: float | None = Field(0.15, gt=0, le=1)
    """Most common phrase, counted once per prompt: share of prompts."""

    max_emoji_share: float | None = Field(0.05, ge=0, le=1)
    """Texts with an emoji."""
    boilerplate: tuple[str, ...] = BOILERPLATE
    """Stock phrases; case and punctuation do not matter."""
    max_boilerplate_share: float | None = Field(0.25, ge=0, le=1)
    """Texts with a stock phrase."""

    max_loop_share: float | None = Field(0.01, ge=0, le=1)
    """Texts in which the same words stand again and again."""
    distinct_segment: int = Field(1000, ge=10)
    """Word pairs of a segment; the mean over segments does not depend on the size of the data."""
    min_distinct: float | None = Field(0.6, ge=0, le=1)
    """Different word pairs over all, mean over segments."""

    duplicate_likeness: float = Field(0.8, ge=0.1, le=1)
    """Least share of common three-word runs (Jaccard) of near-duplicates."""
    duplicate_min_words: int = Field(6, ge=1)
    """Shorter texts are no duplicates: two prompts may both deserve a plain yes."""
    duplicate_max_texts: int = Field(20_000, ge=2)
    """Compare at most so many texts, drawn by hash."""
    max_duplicate_share: float | None = Field(0.05, ge=0, le=1)
    """Texts with a near-duplicate under another prompt."""

    refusals: tuple[str, ...] = REFUSALS
    """Words of a refusal."""
    evasive_words: int = Field(25, ge=1)
    """A refusal with fewer words than this is evasive."""
    max_evasive_share: float | None = Field(0.2, ge=0, le=1)
    """Evasive texts."""
    max_evasive_lift: float | None = Field(0.1, ge=0, le=1)
    """Evasive share of chosen minus that of rejected: what training would add."""

    length_ratio: tuple[float, float] | None = (0.67, 1.5)
    """Bounds of mean words of chosen over mean words of rejected."""
    longer_share: tuple[float, float] | None = (0.3, 0.7)
    """Bounds of the share of pairs whose chosen text is longer, ties half."""

    min_tag_coverage: float | None = Field(0.5, ge=0, le=1)
    """Worst tag: share of its prompts that are left, over that share for all prompts."""
    min_tag_prompts: int = Field(5, ge=1)
    """Tags with fewer prompts are not judged."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        for name in ("length_ratio", "longer_share"):
            bounds = getattr(self, name)
            if bounds is not None and not 0 <= bounds[0] < bounds[1]:
                raise ValueError(f"{name} {list(bounds)} must be two bounds, the lower one first")
        if self.closing_window < self.closing_words:
            raise ValueError(
                f"closing_window {self.closing_window} must hold closing_words {self.closing_words}"
            )
        return self
