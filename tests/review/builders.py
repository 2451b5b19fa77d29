"""A run with many labeled pairs, and a review of it."""

from pathlib import Path

from pipeline.review.labels import LabelFiles
from pipeline.review.pairs import Pair, draw_pairs
from pipeline.review.session import Review
from pipeline.store import RunDir
from tests.evaluation.builders import judgment, make_run, pair, prompt, response
from tests.run.builders import write_rows


def labeled_run(folder: Path, num_pairs: int = 30, principle: str = "harm") -> RunDir:
    """One pair a prompt, judged for `better N`; of every third the orders disagree, and pair N has
    a margin that grows with N.
    """
    run = make_run(folder)
    prompts = write_rows(run, "prompts", [prompt(f"p{i}", f"ask {i}") for i in range(num_pairs)])
    worth = {"better": 1.0, "worse": 0.0}
    texts = {f"{s}{i}": f"{s} {i} {worth[s]}" for i in range(num_pairs) for s in worth}
    samples = write_rows(
        run,
        "preference/sample",
        [response(name, f"p{name.lstrip('betrwos')}", text) for name, text in texts.items()],
    )
    labels = []
    for i in range(num_pairs):
        forward = 0.6 + 0.3 * i / num_pairs
        swapped = 0.55 if i % 3 == 0 else 1 - forward
        names = (f"better{i}", f"worse{i}")
        labels.append(judgment(f"j{i}", f"p{i}", *names, principle, forward, swapped))
    judge = write_rows(run, "preference/judge", labels, inputs=[prompts, samples])
    rows = [pair(f"pair-{j.row_id}", j, texts) for j in labels]
    write_rows(run, "preference/pair", rows, inputs=[prompts, samples, judge])
    return run


def open_review(run: RunDir, folder: Path, limit: int = 30) -> tuple[Review, list[Pair]]:
    """A review whose files are in the folder."""
    pairs = draw_pairs(run, limit=limit, seed=0)
    return Review(pairs, LabelFiles(folder, run.run_id), seed=0), pairs


def answer_for(review: Review, name: str, wanted: str, number: int = 1000) -> int:
    """Answer pairs for the side whose text begins like that; returns how many there were."""
    for done in range(number):
        shown = review.next(name)["pair"]
        if shown is None:
            return done
        side = "left" if shown["left"].startswith(wanted) else "right"
        review.label(name, shown["id"], side, 1.0)
    return number
