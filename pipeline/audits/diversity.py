"""How different the texts of a data set are: distinct word pairs and near-duplicates. All pure.

Near-duplicates are found exactly, by a set join with prefix filtering (Chaudhuri et al. 2006;
Bayardo et al. 2007): two sets with Jaccard t or more must share one of their s - ceil(t s) + 1
rarest members, so only texts with a rare run of words in common are compared. That is fast for
texts and, unlike MinHash, misses nothing and needs no further library.
"""

import math
from collections import Counter
from collections.abc import Sequence

from pipeline.audits.phrases import AuditedText, Words, ngrams
from pipeline.ids import text_hash

SHINGLE = 3
"""Words of a run."""


def distinct_pairs(texts: Sequence[AuditedText], segment: int) -> float | None:
    """Different word pairs over all word pairs, mean over segments of `segment` pairs, in (0, 1].

    Plain distinct-n falls as data grows; segments of one size make data sets comparable (mean
    segmental type-token ratio, Johnson 1944). Texts are taken in the order of their hash, so that
    texts of one prompt do not share a segment by their place. None when there is no full segment.
    """
    ordered = sorted(texts, key=lambda text: text_hash(text.prompt_id, text.text))
    pairs = [pair for text in ordered for pair in zip(text.words, text.words[1:], strict=False)]
    whole = len(pairs) // segment
    if not whole:
        return None
    ratios = [len(set(pairs[i * segment : (i + 1) * segment])) / segment for i in range(whole)]
    return sum(ratios) / whole


def near_duplicates(texts: Sequence[AuditedText], likeness: float) -> list[int]:
    """Indices of texts that have a near-duplicate under another prompt, in order.

    Args:
        likeness: least Jaccard index of their three-word runs, in (0, 1].
    """
    places: dict[Words, list[int]] = {}
    for index, text in enumerate(texts):
        places.setdefault(text.words, []).append(index)
    kinds = list(places)
    prompts = [frozenset(texts[i].prompt_id for i in places[kind]) for kind in kinds]
    marked = {number for number, owners in enumerate(prompts) if len(owners) > 1}
    _join([_runs(kind) for kind in kinds], prompts, likeness, marked)
    return sorted(index for number in marked for index in places[kinds[number]])


def _runs(words: Words) -> frozenset[Words]:
    return frozenset(ngrams(words, SHINGLE) or {words})


def _join(
    sets: Sequence[frozenset[Words]], prompts: Sequence[frozenset[str]], likeness: float,
    marked: set[int],
) -> None:
    """Mark every member of a pair that is alike and has different prompts."""
    frequency = Counter(run for members in sets for run in members)
    index: dict[Words, list[int]] = {}
    # Small sets first: a partner in the index is never larger.
    for number in sorted(range(len(sets)), key=lambda n: (len(sets[n]), n)):
        members = sets[number]
        size = len(members)
        rarest = sorted(members, key=lambda run: (frequency[run], run))
        prefix = rarest[: size - math.ceil(likeness * size - 1e-9) + 1]
        compared: set[int] = set()
        for run in prefix:
            for other in index.get(run, ()):
                if other in compared or {number, other} <= marked:
                    continue
                compared.add(other)
                if len(sets[other]) < likeness * size or not prompts[number] ^ prompts[other]:
                    continue
                shared = len(members & sets[other])
                if shared >= likeness * (size + len(sets[other]) - shared) - 1e-9:
                    marked |= {number, other}
        for run in prefix:
            index.setdefault(run, []).append(number)
