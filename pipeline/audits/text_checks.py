"""The collapse audit: is this data fit to train on, or would a model learn its tics?

In:  finished pairs (PreferenceRow) or SFT rows, and the thresholds
Out: AuditReport with a finding per check

What is audited is the text that training makes more likely: `chosen`, or the completion. DPO on data
with repeated polite closings and emojis gave models that end every answer so (Zhang 2025,
arXiv:2504.04918), and published reward over-optimization shows as one phrase under most prompts
(the samples of Bai et al. 2022). The checks see form only: a data set can pass and be wrong.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.audits.diversity import distinct_pairs, near_duplicates
from pipeline.audits.findings import AuditFinding, AuditReport, Bounds, judged, skipped
from pipeline.audits.pairs import (
    audit_evasive_lift,
    audit_length_ratio,
    audit_longer_share,
    is_evasive,
)
from pipeline.audits.tags import audit_tags
from pipeline.config.audits import CollapseConfig
from pipeline.ids import text_hash
from pipeline.records import PreferenceRow, PromptRow, SftRow
from pipeline.stages.phrases import (
    AuditedText,
    Phrase,
    common_phrases,
    contains_phrase,
    has_emoji,
    has_loop,
    phrase_counts,
    tail_entropy,
)

Check = Callable[[Sequence[AuditedText], CollapseConfig], AuditFinding | None]


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
    chosen = [AuditedText.of(row.prompt_id, row.chosen) for row in usable]
    rejected = [AuditedText.of(row.prompt_id, row.rejected) for row in usable]
    findings = _text_findings(chosen, config)
    findings += [
        check(chosen, rejected, config)
        for check in (audit_evasive_lift, audit_length_ratio, audit_longer_share)
    ]
    findings.append(audit_tags({row.prompt_id for row in usable}, prompts, config))
    return _report("chosen", chosen, findings)


def audit_completions(
    rows: Iterable[SftRow],
    *,
    prompts: Sequence[PromptRow] = (),
    config: CollapseConfig | None = None,
) -> AuditReport:
    """Audit SFT rows; only rows of status ok count."""
    config = config or CollapseConfig()
    usable = [row for row in rows if row.status == "ok"]
    texts = [AuditedText.of(row.prompt_id, row.completion) for row in usable]
    findings = _text_findings(texts, config)
    findings.append(audit_tags({row.prompt_id for row in usable}, prompts, config))
    return _report("completions", texts, findings)


def audit_texts(
    texts: Iterable[tuple[str, str]], *, config: CollapseConfig | None = None
) -> AuditReport:
    """Audit texts given as (prompt id, text), such as the responses of a stage."""
    audited = [AuditedText.of(prompt_id, text) for prompt_id, text in texts]
    return _report("texts", audited, _text_findings(audited, config or CollapseConfig()))


def _report(
    subject: str, texts: Sequence[AuditedText], findings: Sequence[AuditFinding | None]
) -> AuditReport:
    return AuditReport(subject, len(texts), _num_prompts(texts), tuple(f for f in findings if f))


def _text_findings(
    texts: Sequence[AuditedText], config: CollapseConfig
) -> list[AuditFinding | None]:
    checks: Mapping[str, tuple[Check, Bounds]] = {
        "closing_phrase": (_closing_phrase, (None, config.max_closing_share)),
        "tail_entropy": (_tail_entropy, (config.min_tail_entropy, None)),
        "common_ngram": (_common_ngram, (None, config.max_ngram_share)),
        "emoji": (_emoji, (None, config.max_emoji_share)),
        "boilerplate": (_boilerplate, (None, config.max_boilerplate_share)),
        "loops": (_loops, (None, config.max_loop_share)),
        "distinct_pairs": (_distinct, (config.min_distinct, None)),
        "near_duplicates": (_duplicates, (None, config.max_duplicate_share)),
        "evasive": (_evasive, (None, config.max_evasive_share)),
    }
    number = _num_prompts(texts)
    why = f"{number} prompts, and at least {config.min_prompts} are needed"
    return [
        skipped(name, bounds, number, why) if number < config.min_prompts else check(texts, config)
        for name, (check, bounds) in checks.items()
        if bounds != (None, None)
    ]


def _num_prompts(texts: Sequence[AuditedText]) -> int:
    return len({text.prompt_id for text in texts})


def _closing_phrase(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    phrases = common_phrases(texts, config.closing_words, window=config.closing_window)
    return _phrase_finding("closing_phrase", phrases, config.max_closing_share, texts, config)


def _common_ngram(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    phrases = common_phrases(texts, config.ngram_words)
    return _phrase_finding("common_ngram", phrases, config.max_ngram_share, texts, config)


def _phrase_finding(
    name: str,
    phrases: Sequence[Phrase],
    high: float | None,
    texts: Sequence[AuditedText],
    config: CollapseConfig,
) -> AuditFinding:
    number = _num_prompts(texts)
    most = phrases[0].num_prompts if phrases else 0
    return judged(
        name,
        most / number,
        (None, high),
        number,
        detail="share of prompts with the phrase",
        examples=tuple(
            f"'{p}' in {p.num_prompts}" for p in phrases if p.num_prompts >= config.min_repeats
        ),
        excused=most < config.min_repeats,
    )


def _tail_entropy(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    return judged(
        "tail_entropy",
        tail_entropy(texts, config.tail_words),
        (config.min_tail_entropy, None),
        len(texts),
        detail=f"entropy of the last {config.tail_words} words, 1 when all differ",
    )


def _share(
    name: str,
    flagged: Sequence[AuditedText],
    high: float | None,
    texts: Sequence[AuditedText],
    detail: str,
    examples: tuple[str, ...] | None = None,
) -> AuditFinding:
    shown = examples if examples is not None else tuple(_excerpt(t.text) for t in flagged[:3])
    return judged(
        name, len(flagged) / len(texts), (None, high), len(texts), detail=detail, examples=shown
    )


def _emoji(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    flagged = [text for text in texts if has_emoji(text.text)]
    return _share("emoji", flagged, config.max_emoji_share, texts, "texts with an emoji")


def _boilerplate(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    flagged = [text for text in texts if contains_phrase(text, config.boilerplate)]
    counts = phrase_counts(flagged, config.boilerplate)
    examples = tuple(f"'{phrase}' in {n}" for phrase, n in list(counts.items())[:3])
    return _share(
        "boilerplate",
        flagged,
        config.max_boilerplate_share,
        texts,
        "texts with a stock phrase",
        examples,
    )


def _loops(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    flagged = [text for text in texts if has_loop(text.words)]
    return _share(
        "loops",
        flagged,
        config.max_loop_share,
        texts,
        "texts in which the same words stand again and again",
    )


def _distinct(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    bounds = (config.min_distinct, None)
    value = distinct_pairs(texts, config.distinct_segment)
    if value is None:
        return skipped(
            "distinct_pairs",
            bounds,
            len(texts),
            f"fewer than {config.distinct_segment} word pairs in all",
        )
    return judged(
        "distinct_pairs",
        value,
        bounds,
        len(texts),
        detail=f"different word pairs in {config.distinct_segment}",
    )


def _duplicates(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    bounds = (None, config.max_duplicate_share)
    long = [text for text in texts if len(text.words) >= config.duplicate_min_words]
    long.sort(key=lambda text: text_hash(text.prompt_id, text.text))
    long = long[: config.duplicate_max_texts]
    if not long:
        return skipped(
            "near_duplicates", bounds, 0, f"no text has {config.duplicate_min_words} words or more"
        )
    flagged = [long[i] for i in near_duplicates(long, config.duplicate_likeness)]
    return _share(
        "near_duplicates",
        flagged,
        config.max_duplicate_share,
        long,
        "texts with a near-duplicate under another prompt",
    )


def _evasive(texts: Sequence[AuditedText], config: CollapseConfig) -> AuditFinding:
    flagged = [text for text in texts if is_evasive(text, config)]
    return _share(
        "evasive",
        flagged,
        config.max_evasive_share,
        texts,
        f"refusals of fewer than {config.evasive_words} words",
    )


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."
