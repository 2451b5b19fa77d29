"""The collapse audit: is this data fit to train on, or would a model learn its tics?

In:  finished pairs (PreferenceRow), the prompts that the run began with, and the thresholds
Out: AuditReport with a finding per check of the table `CHECKS`

It looks at the text that training makes more likely, `chosen`. DPO on data with repeated polite
closings and emojis gave models that end every answer so (Zhang 2025, arXiv:2504.04918), and
published reward over-optimization shows as one phrase under most prompts (the samples of Bai et al.
2022). The checks see form only: a data set can pass and be wrong.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.audits.diversity import distinct_pairs, near_duplicates
from pipeline.audits.findings import AuditFinding, AuditReport, Bounds, judged, skipped
from pipeline.checks.marks import has_emoji
from pipeline.config.audits import CLOSING_WORDS, CollapseConfig
from pipeline.ids import text_hash
from pipeline.records import PreferenceRow, PromptRow
from pipeline.stages.phrases import (
    EVASIVE_WORDS,
    AuditedText,
    common_phrases,
    contains_phrase,
    has_loop,
    is_evasive,
    phrase_counts,
    tail_entropy,
)

MIN_REPEATS = 3
"""A phrase in fewer prompts never fails, whatever its share."""
TAIL_WORDS = 8
NGRAM_WORDS = 6
DISTINCT_SEGMENT = 1000
"""Word pairs of a segment; the mean over segments does not depend on the size of the data."""
DUPLICATE_LIKENESS = 0.8
"""Least share of common three-word runs (Jaccard) of near-duplicates."""
DUPLICATE_MIN_WORDS = 6
"""Shorter texts are no duplicates: two prompts may both deserve a plain yes."""
DUPLICATE_MAX_TEXTS = 20_000
"""The number of texts to compare, drawn by hash."""


@dataclass(frozen=True)
class PairTexts:
    """Both sides of all pairs, and what they are held against."""

    chosen: list[AuditedText]
    rejected: list[AuditedText]
    prompts: Sequence[PromptRow]
    config: CollapseConfig

    @cached_property
    def prompt_ids(self) -> set[str]:
        """The prompts that have a pair."""
        return {text.prompt_id for text in self.chosen}


@dataclass(frozen=True)
class Measure:
    """The value of a check."""

    value: float | None
    """None where there is too little to look at."""
    n: int
    detail: str
    """What the value measures, or why there is none."""
    examples: tuple[str, ...] = ()
    excused: bool = False
    """True for a value that never fails."""


@dataclass(frozen=True)
class Check:
    """One line of the table of checks."""

    measure: Callable[[PairTexts], Measure]
    bounds: Callable[[CollapseConfig], Bounds]
    needs_pairs: bool = True
    """Whether it is skipped where pairs are few."""


def audit_pairs(
    rows: Iterable[PreferenceRow],
    *,
    prompts: Sequence[PromptRow] = (),
    config: CollapseConfig | None = None,
) -> AuditReport:
    """Audit finished pairs; only rows of status ok count.

    Args:
        prompts: all prompts that the run began with, for the coverage of tags.
    """
    config = config or CollapseConfig()
    usable = [row for row in rows if row.status == "ok"]
    data = PairTexts(
        [AuditedText.of(row.prompt_id, row.chosen) for row in usable],
        [AuditedText.of(row.prompt_id, row.rejected) for row in usable],
        prompts,
        config,
    )
    findings = tuple(
        _finding(name, check, bounds, data)
        for name, check in CHECKS.items()
        if (bounds := check.bounds(config)) != (None, None)
    )
    return AuditReport("chosen", len(data.chosen), len(data.prompt_ids), findings)


def _finding(name: str, check: Check, bounds: Bounds, data: PairTexts) -> AuditFinding:
    number, least = len(data.prompt_ids), data.config.min_prompts
    if check.needs_pairs and number < least:
        return skipped(name, bounds, number, f"{number} prompts, and at least {least} are needed")
    measure = check.measure(data)
    if measure.value is None:
        return skipped(name, bounds, measure.n, measure.detail)
    return judged(
        name,
        measure.value,
        bounds,
        measure.n,
        excused=measure.excused,
        detail=measure.detail,
        examples=measure.examples,
    )


def _phrase(data: PairTexts, size: int, window: int | None = None) -> Measure:
    phrases = common_phrases(data.chosen, size, window=window)
    number, most = len(data.prompt_ids), phrases[0].num_prompts if phrases else 0
    return Measure(
        most / number,
        number,
        f"share of prompts with the phrase; one in fewer than {MIN_REPEATS} prompts passes",
        tuple(f"'{p}' in {p.num_prompts}" for p in phrases if p.num_prompts >= MIN_REPEATS),
        excused=most < MIN_REPEATS,
    )


def _tail_entropy(data: PairTexts) -> Measure:
    detail = f"entropy of the last {TAIL_WORDS} words, 1 when all differ"
    return Measure(tail_entropy(data.chosen, TAIL_WORDS), len(data.chosen), detail)


def _share(flagged: Sequence[AuditedText], texts: Sequence[AuditedText], detail: str) -> Measure:
    examples = tuple(_excerpt(text.text) for text in flagged[:3])
    return Measure(len(flagged) / len(texts), len(texts), detail, examples)


def _emoji(data: PairTexts) -> Measure:
    flagged = [text for text in data.chosen if has_emoji(text.text)]
    return _share(flagged, data.chosen, "texts with an emoji")


def _boilerplate(data: PairTexts) -> Measure:
    flagged = [text for text in data.chosen if contains_phrase(text, data.config.boilerplate)]
    counts = list(phrase_counts(flagged, data.config.boilerplate).items())
    return Measure(
        len(flagged) / len(data.chosen),
        len(data.chosen),
        "texts with a stock phrase",
        tuple(f"'{phrase}' in {number}" for phrase, number in counts[:3]),
    )


def _loops(data: PairTexts) -> Measure:
    flagged = [text for text in data.chosen if has_loop(text.words)]
    return _share(flagged, data.chosen, "texts in which one block of words comes again and again")


def _distinct(data: PairTexts) -> Measure:
    value = distinct_pairs(data.chosen, DISTINCT_SEGMENT)
    if value is None:
        return Measure(None, len(data.chosen), f"fewer than {DISTINCT_SEGMENT} word pairs in all")
    return Measure(value, len(data.chosen), f"different word pairs in {DISTINCT_SEGMENT}")


def _duplicates(data: PairTexts) -> Measure:
    texts = [text for text in data.chosen if len(text.words) >= DUPLICATE_MIN_WORDS]
    texts.sort(key=lambda text: text_hash(text.prompt_id, text.text))
    texts = texts[:DUPLICATE_MAX_TEXTS]
    if not texts:
        return Measure(None, 0, f"no text has {DUPLICATE_MIN_WORDS} words or more")
    flagged = [texts[i] for i in near_duplicates(texts, DUPLICATE_LIKENESS)]
    return _share(flagged, texts, "texts with a near-duplicate under another prompt")


def _evasive(data: PairTexts) -> Measure:
    flagged = [text for text in data.chosen if is_evasive(text, data.config.refusals)]
    return _share(flagged, data.chosen, f"refusals of fewer than {EVASIVE_WORDS} words")


def _evasive_lift(data: PairTexts) -> Measure:
    """Evasive share of chosen minus that of rejected, in [-1, 1]."""
    chosen, rejected = (
        sum(is_evasive(text, data.config.refusals) for text in side) / len(side)
        for side in (data.chosen, data.rejected)
    )
    detail = (
        f"{100 * chosen:.1f} % of chosen and {100 * rejected:.1f} % of rejected texts are evasive"
    )
    return Measure(chosen - rejected, len(data.chosen), detail)


def _length_ratio(data: PairTexts) -> Measure:
    """Mean words of chosen over mean words of rejected."""
    number = len(data.chosen)
    chosen, rejected = (
        sum(len(text.words) for text in side) / number for side in (data.chosen, data.rejected)
    )
    if not rejected:
        return Measure(None, number, "no rejected text has a word")
    detail = f"{chosen:.1f} words in chosen, {rejected:.1f} in rejected texts"
    return Measure(chosen / rejected, number, detail)


def _longer_share(data: PairTexts) -> Measure:
    """Pairs whose chosen text has more words, ties half, in [0, 1].

    A model that learns "longer is better" gets this share of the pairs right without reading them.
    """
    lengths = [
        (len(c.words), len(r.words)) for c, r in zip(data.chosen, data.rejected, strict=True)
    ]
    longer = sum(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in lengths)
    detail = "pairs whose chosen text is the longer one; ties count half"
    return Measure(longer / len(lengths), len(lengths), detail)


def _tag_coverage(data: PairTexts) -> Measure:
    """Worst tag: share of its prompts that are left, over that share for all prompts.

    1 means that no topic loses more than the others, 0 that one is gone.
    """
    number, least = len(data.prompts), data.config.min_tag_prompts
    by_tag: dict[str, list[bool]] = defaultdict(list)
    for prompt in data.prompts:
        for tag in set(prompt.tags):
            by_tag[tag].append(prompt.row_id in data.prompt_ids)
    shares = {tag: sum(left) / len(left) for tag, left in by_tag.items() if len(left) >= least}
    num_left = sum(prompt.row_id in data.prompt_ids for prompt in data.prompts)
    if not shares or not num_left:
        why = "no prompt is left" if shares else f"no tag has {least} prompts or more"
        return Measure(None, number, why)
    overall = num_left / number
    ranked = sorted(shares, key=lambda tag: (shares[tag], tag))
    return Measure(
        shares[ranked[0]] / overall,
        number,
        f"{100 * overall:.1f} % of all prompts are left; the worst tag over that",
        tuple(f"{tag}: {sum(by_tag[tag])} of {len(by_tag[tag])}" for tag in ranked[:3]),
    )


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


CHECKS = {
    "closing_phrase": Check(
        lambda data: _phrase(data, CLOSING_WORDS, data.config.closing_window),
        lambda config: (None, config.max_closing_share),
    ),
    "tail_entropy": Check(_tail_entropy, lambda config: (config.min_tail_entropy, None)),
    "common_ngram": Check(
        lambda data: _phrase(data, NGRAM_WORDS), lambda config: (None, config.max_ngram_share)
    ),
    "emoji": Check(_emoji, lambda config: (None, config.max_emoji_share)),
    "boilerplate": Check(_boilerplate, lambda config: (None, config.max_boilerplate_share)),
    "loops": Check(_loops, lambda config: (None, config.max_loop_share)),
    "distinct_pairs": Check(_distinct, lambda config: (config.min_distinct, None)),
    "near_duplicates": Check(_duplicates, lambda config: (None, config.max_duplicate_share)),
    "evasive": Check(_evasive, lambda config: (None, config.max_evasive_share)),
    "evasive_lift": Check(_evasive_lift, lambda config: (None, config.max_evasive_lift)),
    "length_ratio": Check(_length_ratio, lambda config: config.length_ratio or (None, None)),
    "longer_share": Check(_longer_share, lambda config: config.longer_share or (None, None)),
    "tag_coverage": Check(
        _tag_coverage, lambda config: (config.min_tag_coverage, None), needs_pairs=False
    ),
}
"""Every check of the collapse audit by its name in audit.json, in the order of the report."""
