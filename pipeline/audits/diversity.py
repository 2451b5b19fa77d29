"""How different the texts of a data set are: distinct word pairs and near-duplicates. All pure.

Near-duplicates are candidates of datasketch's MinHash LSH (Broder 1997; Leskovec, Rajaraman,
Ullman, Mining of Massive Datasets, ch. 3), each decided by the exact Jaccard index of the two
texts. So a collision of hashes marks nothing wrongly; a pair can be missed, with the probability
that `miss` gives.
"""

from collections.abc import Iterable, Sequence

from pipeline.ids import text_hash
from pipeline.stages.phrases import AuditedText, Words, ngrams

SHINGLE = 3
"""Words of a run."""
PERMUTATIONS = 256
"""Hashes of a sketch."""
RECALL = 0.99
"""Least probability of finding a pair exactly as alike as required; it rises fast above."""
SEED = 1


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

    Equal texts are always found. Two others whose Jaccard index is s are compared with probability
    1 - miss(s, *bands_and_rows(likeness)), at least `RECALL` for s >= likeness: with likeness 0.8,
    0.997 for s = 0.8 and 0.99996 for s = 0.85. Deterministic.

    Args:
        likeness: least Jaccard index of their three-word runs, in [0.1, 1].
    """
    places: dict[Words, list[int]] = {}
    for index, text in enumerate(texts):
        places.setdefault(text.words, []).append(index)
    kinds = list(places)
    prompts = [frozenset(texts[i].prompt_id for i in places[kind]) for kind in kinds]
    marked = {number for number, owners in enumerate(prompts) if len(owners) > 1}
    _mark_alike([_runs(kind) for kind in kinds], prompts, likeness, marked)
    return sorted(index for number in marked for index in places[kinds[number]])


def near_earlier(texts: Sequence[Words], earlier: Iterable[Words], likeness: float) -> set[int]:
    """Indices of texts that have a near-duplicate among the earlier ones, as `near_duplicates`
    decides. The earlier ones stream through: any number of them takes no more memory than one.
    """
    from datasketch import MinHash, MinHashLSH

    empty = MinHash(num_perm=PERMUTATIONS, seed=SEED)

    def sketch(runs: frozenset[Words]) -> MinHash:
        result = empty.copy()
        result.update_batch([" ".join(run).encode() for run in runs])
        return result

    sets = [_runs(text) for text in texts]
    index = MinHashLSH(num_perm=PERMUTATIONS, params=bands_and_rows(likeness))
    for number, members in enumerate(sets):
        index.insert(number, sketch(members), check_duplication=False)
    marked: set[int] = set()
    for words in earlier if sets else ():
        runs = _runs(words)
        alike = {n for n in index.query(sketch(runs)) if _alike(sets[n], runs, likeness)}
        for number in alike:
            # A text is looked for until it is found; data that repeats one text has many like it.
            index.remove(number)
        marked |= alike
    return marked


def bands_and_rows(likeness: float) -> tuple[int, int]:
    """Bands and rows of the index: the most rows, so the fewest candidates, that keep `RECALL`."""
    for rows in range(PERMUTATIONS // 2, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - miss(likeness, bands, rows) >= RECALL:
            return bands, rows
    return PERMUTATIONS, 1


def miss(likeness: float, bands: int, rows: int) -> float:
    """Probability that two sets with this Jaccard index agree in all rows of no band."""
    return float((1 - likeness**rows) ** bands)


def _runs(words: Words) -> frozenset[Words]:
    return frozenset(ngrams(words, SHINGLE) or {words})


def _mark_alike(
    sets: Sequence[frozenset[Words]],
    prompts: Sequence[frozenset[str]],
    likeness: float,
    marked: set[int],
) -> None:
    """Mark every member of a pair that is alike and has different prompts."""
    # Brings SciPy along, which takes longer to load than all else that a run resumes with.
    from datasketch import MinHash, MinHashLSH

    sketches = MinHash.bulk(
        ([" ".join(run).encode() for run in members] for members in sets),
        num_perm=PERMUTATIONS,
        seed=SEED,
    )
    index = MinHashLSH(num_perm=PERMUTATIONS, params=bands_and_rows(likeness))
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch, check_duplication=False)
    for number, sketch in enumerate(sketches):
        # What is marked needs no partner any more: data that collapsed into one text is marked
        # whole by its first query, instead of comparing all with all.
        if number in marked:
            continue
        alike = {
            # An unmarked text from before has been compared with this one at its own turn.
            other
            for other in index.query(sketch)
            if (other > number or other in marked)
            and prompts[other] != prompts[number]
            and _alike(sets[number], sets[other], likeness)
        }
        if alike:
            marked |= alike | {number}


def _alike(first: frozenset[Words], second: frozenset[Words], likeness: float) -> bool:
    """True when the Jaccard index of two sets is at least `likeness`."""
    shared = len(first & second)
    return shared >= likeness * (len(first) + len(second) - shared) - 1e-9
