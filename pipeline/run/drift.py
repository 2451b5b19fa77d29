"""How the prompts and pairs of a night differ from those of the night before: tags and lengths.

In:  two nights
Out: a row per tag and per kind of text, with a mark where chance alone would hardly do it

Does not: correct for looking at many tags at once; each line is wrong in one night of 1,000.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.stages.phrases import split_words
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import PAIRS, PROMPTS

ALPHA = 0.001
"""Probability of a mark where nothing has changed."""
TEXTS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Profile:
    """The prompts and pairs that a night made itself."""

    num_prompts: int
    tags: dict[str, int]
    """Prompts by tag."""
    words: dict[str, list[float]]
    """Words of the prompt, of chosen and of rejected replies: a mean for each prompt."""


def profile(run: RunDir) -> Profile:
    """Read the prompts and pairs of a run. Raises StoreError when a shard is damaged."""
    rows = list(stage_rows(run.root, PROMPTS))
    texts: dict[str, dict[str, list[str]]] = {name: defaultdict(list) for name in TEXTS}
    for row in rows:
        texts["prompt"][row.row_id] = [" ".join(message.content for message in row.messages)]
    for pair in stage_rows(run.root, PAIRS):
        if pair.status == "ok":
            texts["chosen"][pair.prompt_id].append(pair.chosen)
            texts["rejected"][pair.prompt_id].append(pair.rejected)
    words = {
        name: [fmean(len(split_words(text)) for text in each) for each in by_prompt.values()]
        for name, by_prompt in texts.items()
    }
    return Profile(len(rows), dict(Counter(tag for row in rows for tag in {*row.tags})), words)


def drift(before: Profile, tonight: Profile) -> list[tuple[str, str, str, str]]:
    """Name, value before, value tonight, and `yes` where the two differ beyond chance."""
    lines = []
    for name in TEXTS:
        old, new = before.words[name], tonight.words[name]
        if old and new:
            mark = "yes" if lengths_differ(old, new) else ""
            lines.append((f"words, {name}", f"{fmean(old):.1f}", f"{fmean(new):.1f}", mark))
    for tag in sorted({*before.tags, *tonight.tags}):
        shares = [(each.tags.get(tag, 0), each.num_prompts) for each in (before, tonight)]
        shown = ["{} of {}".format(*share) for share in shares]
        mark = "yes" if shares_differ(*shares) else ""
        lines.append((f"tag {tag}", shown[0], shown[1], mark))
    return lines


def shares_differ(before: tuple[int, int], tonight: tuple[int, int]) -> bool:
    """Whether two shares, as (count, number), differ beyond chance: Fisher's exact test (1922)."""
    from scipy.stats import fisher_exact  # loaded here: see `pipeline.stats`

    table = [[count, number - count] for count, number in (before, tonight)]
    return bool(fisher_exact(table).pvalue <= ALPHA)


def lengths_differ(before: Sequence[float], tonight: Sequence[float]) -> bool:
    """Whether one of two samples is larger beyond chance: the rank test of Mann and Whitney (1947).

    Lengths have long tails, which decide a comparison of means and not one of ranks.
    """
    from scipy.stats import mannwhitneyu

    return bool(mannwhitneyu(before, tonight).pvalue <= ALPHA)
