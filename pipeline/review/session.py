"""One review: who sees which pair next, what they answer, and how far they agree.

In:  the pairs of a run, the label files, the names and answers of reviewers
Out: the next pair of a reviewer, without a hint of what the judge said; Cohen's kappa

A third of the pairs goes to every reviewer, so that they can be compared; each other pair goes to
the first who takes it. A pair that a browser was closed on stays with its reviewer and goes to the
others last. Left and right are drawn for each reviewer and pair.

A reviewer can take back labels, the latest first. The pair comes again, the label stays on the
disk as superseded, and the last one counts.

Does not: take back what was labeled before `rlaif review` was started.
"""

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from pipeline.errors import DataError
from pipeline.ids import uniform
from pipeline.records import PreferenceRow
from pipeline.review.labels import Answer, Label, LabelFiles, side_of
from pipeline.review.pairs import Pair
from pipeline.sources.agreement import Agreement, agreement

SHARED = 1 / 3
"""Share of the pairs that every reviewer sees."""
MAX_NAME = 60
DRAWS = 500
"""Resamples for the interval of a kappa."""
ANSWERS = ("left", "right", "tie")


class Review:
    """The state of a review; safe to use from several threads."""

    def __init__(self, pairs: Sequence[Pair], files: LabelFiles, *, seed: int) -> None:
        """Continue with the labels that the files hold."""
        self._pairs = {pair.row_id: pair for pair in pairs}
        self._files = files
        self._seed = seed
        self._lock = threading.Lock()
        self._held: dict[str, str] = {}
        """Reviewer to whom an unlabeled pair was shown last, by row id."""
        self._given: dict[str, list[Label]] = defaultdict(list)
        """Labels since the start, by reviewer, the latest last."""
        self._by_pair: dict[str, dict[str, Label]] = defaultdict(dict)
        for label in files.labels:
            self._by_pair[label.pair][label.annotator] = label

    def next(self, reviewer: str) -> dict[str, Any]:
        """The reviewer's next pair, None at the end, with how many are done and left, and whether
        a label can be taken back.

        Raises:
            DataError: the name cannot be used.
        """
        name = check_name(reviewer)
        with self._lock:
            open_to = [p for p in self._pairs.values() if self._is_open(p, name)]

            def turn(pair: Pair) -> int:
                holder = self._held.get(pair.row_id)
                return 0 if holder == name else 1 if holder is None else 2

            pair = min(open_to, key=turn, default=None)
            if pair is not None and not self._is_shared(pair):
                self._held[pair.row_id] = name
            done = sum(name in labels for labels in self._by_pair.values())
            given = bool(self._given[name])
        shown = self._shown(pair, name) if pair else None
        return {"pair": shown, "done": done, "left": len(open_to), "can_undo": given}

    def label(self, reviewer: str, row_id: str, answer: str, seconds: float) -> None:
        """Save an answer.

        Args:
            answer: `left`, `right` or `tie`, as the reviewer saw the pair.

        Raises:
            DataError: name, pair or answer cannot be used, or the reviewer labeled it before.
            StoreError: it could not be written; nothing was saved.
        """
        name, pair = check_name(reviewer), self._pairs.get(row_id)
        if pair is None or answer not in ANSWERS or not 0 <= seconds < math.inf:
            raise DataError("that is not an answer to a pair of this review; load the page again")
        with self._lock:
            if name in self._by_pair[row_id]:
                raise DataError(
                    f"{name} labeled this pair before; load the page again, or take that label back"
                )
            value: Answer = "tie"
            if answer != "tie":
                value = (
                    "first" if (answer == "left") == self._first_is_left(pair, name) else "second"
                )
            label = Label(row_id, name, value, round(seconds, 2))
            self._files.add(pair, label)
            self._by_pair[row_id][name] = label
            self._given[name].append(label)
            self._held.pop(row_id, None)

    def take_back(self, reviewer: str) -> None:
        """Take back the reviewer's latest label; its pair is the next one again.

        Raises:
            DataError: the name cannot be used, or there is none since the start.
            StoreError: it could not be written; the label still counts.
        """
        name = check_name(reviewer)
        with self._lock:
            if not self._given[name]:
                raise DataError(f"{name} has given no label since `rlaif review` was started")
            label = self._given[name][-1]
            self._files.take_back(label)
            self._given[name].pop()
            del self._by_pair[label.pair][name]
            self._held[label.pair] = name

    def figures(self) -> list[dict[str, Any]]:
        """Agreement of people and judge, on the random sample and on all pairs, then of every two
        reviewers; only those with a shared pair that is no tie.
        """
        with self._lock:
            labels = [label for labels in self._by_pair.values() for label in labels.values()]
        known = [(self._pairs[x.pair], x) for x in labels if x.pair in self._pairs]
        people = [(pair, label) for pair, label in known if side_of(label)]
        drawn = [(pair, label) for pair, label in people if pair.reason == "random"]
        pairs = self._pairs.values()
        results = [
            ("people and judge, random sample", judge_agreement(pairs, drawn)),
            ("people and judge, all pairs", judge_agreement(pairs, people)),
        ]
        names = sorted({label.annotator for _, label in people})
        for one, two in combinations(names, 2):
            first, second = (_rows([x for x in people if x[1].annotator == n]) for n in (one, two))
            results.append((f"{one} and {two}", agreement(first, second, draws=DRAWS)))
        return [_figure(title, result) for title, result in results if result.num_items]

    def counts(self) -> dict[str, int]:
        """Labels by reviewer."""
        with self._lock:
            return dict(Counter(name for labels in self._by_pair.values() for name in labels))

    def _is_open(self, pair: Pair, name: str) -> bool:
        labels = self._by_pair[pair.row_id]
        return name not in labels and (not labels or self._is_shared(pair))

    def _is_shared(self, pair: Pair) -> bool:
        return uniform("review shared", self._seed, pair.row_id) < SHARED

    def _first_is_left(self, pair: Pair, name: str) -> bool:
        return uniform("review side", self._seed, f"{name} {pair.row_id}") < 0.5

    def _shown(self, pair: Pair, name: str) -> dict[str, Any]:
        texts = [pair.first, pair.second]
        left, right = texts if self._first_is_left(pair, name) else texts[::-1]
        return {
            "id": pair.row_id,
            "question": pair.question,
            "prompt": [{"role": m.role, "content": m.content} for m in pair.messages],
            "left": left,
            "right": right,
        }


def judge_agreement(pairs: Iterable[Pair], labels: Sequence[tuple[Pair, Label]]) -> Agreement:
    """Agreement of the judge of the pairs with the labels of people; a tie is not counted."""
    judged = [pair.preferring(pair.judge) for pair in pairs if pair.judge]
    return agreement(judged, _rows(labels), draws=DRAWS)


def check_name(name: str) -> str:
    """The name of a reviewer without outer white space. Raises DataError for an unusable one."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise DataError(f"a reviewer's name has 1 to {MAX_NAME} printable characters; correct it")
    return name


def _rows(labels: Sequence[tuple[Pair, Label]]) -> list[PreferenceRow]:
    return [p.preferring(side) for p, x in labels if (side := side_of(x))]


def _figure(title: str, result: Agreement) -> dict[str, Any]:
    kappa = [result.kappa, result.kappa_low, result.kappa_high]
    values = [None if math.isnan(value) else round(value, 3) for value in kappa]
    equal = round(result.equal.share, 3) if result.equal else None
    return {"title": title, "pairs": result.num_items, "kappa": values, "equal": equal}
