"""Thresholds of the two audits before an export: of the labels and of the texts.

The defaults of the text audit suit natural English. A closed world of few sentences repeats itself
by design; set the thresholds that do not apply there to null, as flows/configs/demo.yaml does.
"""

import math
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, Field

from pipeline.config.section import Section


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= bounds[0] < bounds[1]:
        raise ValueError(f"{list(bounds)} must be two bounds, the lower one first")
    return bounds


Share = Annotated[float, Field(ge=0, le=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_in_order)]
RatioRange = Annotated[tuple[float, float], AfterValidator(_in_order)]

CLOSING_WORDS = 5
"""Words of a closing phrase of the collapse audit."""
_PHRASES = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text("utf-8"))
BOILERPLATE: tuple[str, ...] = tuple(_PHRASES["boilerplate"])
REFUSALS: tuple[str, ...] = tuple(_PHRASES["refusals"])


class LabelAuditConfig(Section):
    """Thresholds that the labels must meet before they are exported. Null turns a check off.

    A check fails only when the whole 95 % interval of its figure is on the wrong side of the
    threshold, so that chance does not stop a small run.
    """

    enabled: bool = True
    """False leaves the audit out, canaries included."""
    canaries: Path | None = Path("prompts/canaries/general.yaml")
    """YAML file with comparisons whose answer is known; null for generated canaries only."""
    canaries_per_shard: int = Field(4, ge=0)
    """Canaries of each kind in each shard, at least. A run with few shards has more
    per shard, so that the checks reach `min_rows`; 0 for no canaries.
    """
    min_known: Share | None = 0.75
    """Share of known answers that the judge finds; ties count half, unreadable verdicts not at all.
    """
    min_checked: Share | None = None
    """Share of comparisons that a principle's check decides in which the judge agrees with it, for
    all of these principles and for each. Their labels come from the check in any case."""
    max_injected: Share | None = 0.1
    """Share of worse responses that win with an instruction to the judge and lose without it."""
    max_swapped: Share | None = 0.1
    """Mean difference between the judge's mean of both orders and one minus that of the same pair
    with the responses exchanged, before clamp and calibration."""
    max_identical: float | None = Field(0.2, ge=0, le=0.5)
    """Slot bias: mean distance from 0.5 of the probability of slot A when both slots hold one text,
    before the clamp. A judge that reasons first is often sure of one slot and may need more."""
    max_padded: Share | None = 0.5
    """Share of responses that beat themselves when a sentence without content is added."""
    max_unparsed: Share | None = 0.05
    """Share of comparisons without a readable verdict; checked for canaries too, separately."""
    max_off_option: Share | None = 0.1
    """Share of calls in which both options together have less than half of the probability: the
    judge would rather have written something else, such as prose or its thoughts.
    """
    max_order_disagreement: Share | None = 0.5
    """Share of comparisons in which the two orders clearly prefer different responses (both more
    than 0.1 from 0.5).
    """
    slot_share: ShareRange | None = (0.2, 0.8)
    """Bounds of the share of calls in which slot A wins; calls within 0.1 of 0.5 count half."""
    max_longer: Share | None = None
    """Share of comparisons that the response with more words wins; ties count half."""
    per_principle: bool = True
    """Also check the labels of each principle that has enough of them."""
    min_rows: int = Field(20, ge=1)
    """Least number of rows for a check; with fewer, it is reported as skipped."""
    min_prompts: int = Field(3, ge=1)
    """Least number of prompts, or of shipped canaries, behind these rows; with fewer, the check is
    reported as skipped."""

    def canaries_in_shard(self, num_shards: int) -> int:
        """Canaries of each kind in a shard of a run with `num_shards`: at least
        `canaries_per_shard`.

        An instruction counts only where the known answer was found without it, which a judge that
        just passes does in `min_known` of them; so all shards together have min_rows / min_known.
        """
        if not self.canaries_per_shard or not num_shards:
            return self.canaries_per_shard
        needed = self.min_rows / max(self.min_known or 1.0, 0.5)
        return max(self.canaries_per_shard, math.ceil(needed / num_shards))


class CollapseConfig(Section):
    """Thresholds that the texts of a data set must meet. Null turns a check off."""

    min_prompts: int = Field(20, ge=2)
    """Least number of prompts; with fewer, every check is reported as skipped."""
    closing_window: int = Field(12, ge=CLOSING_WORDS)
    """Number of last words in which a closing phrase, of five words, is searched."""
    max_closing_share: Share | None = 0.04
    """Most common closing phrase: share of prompts."""
    min_tail_entropy: Share | None = 0.95
    """Entropy of the last eight words, over that of endings which all differ."""
    max_ngram_share: Share | None = 0.15
    """Most common six words anywhere in a text, counted once per prompt: share of prompts."""
    max_emoji_share: Share | None = 0.05
    """Texts with an emoji."""
    boilerplate: tuple[str, ...] = BOILERPLATE
    """Stock phrases; case and punctuation do not matter."""
    max_boilerplate_share: Share | None = 0.25
    """Texts with a stock phrase."""
    max_loop_share: Share | None = 0.01
    """Texts that repeat one block of words over and over."""
    min_distinct: Share | None = 0.6
    """Different word pairs over all, mean over segments of a thousand."""
    max_duplicate_share: Share | None = 0.05
    """Texts with a near-duplicate under another prompt."""
    refusals: tuple[str, ...] = REFUSALS
    """Words of a refusal. A refusal of fewer than 25 words is evasive."""
    max_evasive_share: Share | None = 0.2
    """Evasive texts."""
    max_evasive_lift: Share | None = 0.1
    """Evasive share of chosen minus that of rejected: what training would add."""
    length_ratio: RatioRange | None = (0.67, 1.5)
    """Bounds of mean words of chosen over mean words of rejected."""
    longer_share: RatioRange | None = (0.3, 0.7)
    """Bounds of the share of pairs whose chosen text is longer, ties half."""
    min_tag_coverage: Share | None = 0.5
    """Worst tag: share of its prompts that have a pair, over that share for all prompts."""
    min_tag_prompts: int = Field(5, ge=1)
    """Tags with fewer prompts are not checked."""
