"""What people have said about a run's pairs so far, for its gate.

In:  the labels of `rlaif review`, also while it is open, and the shards of preference/pair
Out: ReviewMetrics

Labels of pairs that the run no longer has do not count. Only the random sample tells how far the
judge can be trusted, as the other pairs are hard.
"""

from pathlib import Path

from pipeline.evaluation.decision import ReviewMetrics
from pipeline.evaluation.shard_columns import iter_shards
from pipeline.review.labels import NAMES, saved_labels
from pipeline.review.pairs import Reason, read_pairs
from pipeline.review.session import judge_agreement
from pipeline.store import RunDir
from pipeline.store.stage_names import PAIRS


def reviewed(run: RunDir, folder: Path) -> ReviewMetrics:
    """The figures of the labels in a review's folder.

    Raises:
        DataError: a line of the files is not a label.
        StoreError: a shard is damaged.
    """
    labels = {name: list(saved_labels(folder, name)) for name in NAMES}
    reasons: dict[str, Reason] = {
        label.pair: "random" if name == "random" else "unsure"
        for name, found in labels.items()
        for label in found
    }
    pairs = {pair.row_id: pair for pair in read_pairs(run.root, reasons, {})}
    drawn = [(pairs[label.pair], label) for label in labels["random"] if label.pair in pairs]
    columns = ["soft_label", "chosen", "rejected"]
    can_be_shown = (
        row["soft_label"] is not None and row["chosen"] != row["rejected"]
        for _, rows in iter_shards(run.root, PAIRS, columns)
        for row in rows
    )
    agreement = judge_agreement(pairs.values(), drawn).equal
    return ReviewMetrics(pairs=len(pairs), of=sum(can_be_shown), agreement=agreement)
