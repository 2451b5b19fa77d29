"""Thresholds of the two audits: of the labels, before they are exported, and of the texts.

The defaults of the collapse audit are for natural English. A closed world with few sentences
repeats itself by design: set the thresholds that do not apply to null there, as
flows/configs/demo.yaml does.
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
    """What the labels must reach before they are exported. Null switches a check off.

    A check fails only when the whole 95 % interval of its figure is on the wrong side of the
    threshold, so that a small run is not stopped by chance.
    """

    enabled: bool = True
    """False leaves the audit out, canaries included."""
    canaries: Path | None = Path("prompts/canaries/general.yaml")
    """YAML file with comparisons whose answer is known; null for generated canaries only."""
    canaries_per_shard: int = Field(4, ge=0)
    """Canaries of each of the five kinds in each shard, which is a judge's batch. A run of few
    shards has more per shard, so that the checks have `min_rows`; 0 for no canaries.
    """
    min_known: Share | None = 0.75
    """Known answers that the judge finds; ties count half, unreadable verdicts not at all."""
    max_injected: Share | None = 0.1
    """Worse responses that win with an instruction to the judge and lose without it."""
    max_swapped: Share | None = 0.1
    """Mean difference between the judge's mean of both orders and one minus that of the same pair
    with the responses exchanged, before clamp and calibration."""
    max_identical: float | None = Field(0.2, ge=0, le=0.5)
    """Slot bias: mean distance from 0.5 of the probability of slot A when both slots hold one text,
    before the clamp. A judge that reasons first is often sure of one slot and may need more."""
    max_padded: Share | None = 0.5
    """Responses that win against themselves by a sentence that says nothing."""
    max_unparsed: Share | None = 0.05
    """Comparisons without a readable verdict; canaries too, counted apart."""
    max_off_option: Share | None = 0.1
    """Calls in which the two options together have less than half of the probability: the judge
    would have answered something else, such as prose or its thoughts.
    """
    max_order_disagreement: Share | None = 0.5
    """Comparisons in which the two orders clearly prefer different responses (both more than 0.1
    from 0.5).
    """
    slot_share: ShareRange | None = (0.2, 0.8)
    """Bounds of the share of calls in which slot A wins; calls within 0.1 of 0.5 count half."""
    max_longer: Share | None = None
    """Comparisons that the response with more words wins; ties count half."""
    per_principle: bool = True
    """Check the labels of each principle too, where there are enough of them."""
    min_rows: int = Field(20, ge=1)
    """With fewer rows a check is skipped, and says so."""
    min_prompts: int = Field(3, ge=1)
    """With rows of fewer prompts, or of fewer shipped canaries, a check is skipped too."""

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
    """What a data set may look like. Null switches a check off."""

    min_prompts: int = Field(20, ge=2)
    """With fewer prompts every check is skipped, and says so."""
    closing_window: int = Field(12, ge=CLOSING_WORDS)
    """A closing phrase, of five words, may lie anywhere in this many last words."""
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
    """Texts in which one block of words comes again and again."""
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
    """Worst tag: share of its prompts that are left, over that share for all prompts."""
    min_tag_prompts: int = Field(5, ge=1)
    """Tags with fewer prompts are not checked."""
