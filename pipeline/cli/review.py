"""The command `review`: a page on this machine on which people label pairs of a run."""

from contextlib import suppress
from pathlib import Path

from pipeline.cli.terminal import say
from pipeline.config.paths import shown_path
from pipeline.errors import MachineError
from pipeline.review.labels import LabelFiles
from pipeline.review.pairs import draw_pairs
from pipeline.review.server import ReviewServer
from pipeline.review.session import Review
from pipeline.run.start import find_run, review_folder


def review_run(name: str, *, num_pairs: int, seed: int, port: int) -> None:
    """Serve the review of a run until Ctrl-C, then say where the labels are and what takes them.

    Raises:
        UserError: there is no such run, it has no labeled pair, or it is under review.
        MachineError: the port is taken.
    """
    run = find_run(name)
    pairs = draw_pairs(run, limit=num_pairs, seed=seed)
    files = LabelFiles(review_folder(run), run.run_id)
    try:
        review = Review(pairs, files, seed=seed)
        try:
            listening = ReviewServer(review, run.run_id, port=port)
        except OSError as error:
            raise MachineError(
                f"port {port} cannot be listened on ({error.strerror}); give another --port, or "
                "leave it out for a free one"
            ) from error
        with listening as server:
            say(f"review {len(pairs)} pairs at {server.url}")
            say("several people can use it at once, each under a name; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                server.serve_forever()
        _print_end(review, files.folder)
    finally:
        files.close()


def _print_end(review: Review, folder: Path) -> None:
    counts = review.counts()
    for name, number in sorted(counts.items()):
        say(f"{name}: {number} labels")
    for figure in review.figures():
        kappa = "–" if figure["kappa"][0] is None else f"{figure['kappa'][0]:.2f}"
        say(f"{figure['title']}: kappa {kappa} over {figure['pairs']} pairs")
    if counts:
        say(f"labels: {shown_path(str(folder / 'sources.yaml'))}")
        say(
            "measure the judge on the random sample: rlaif judge-eval --recipe RECIPE --sources "
            f"{shown_path(str(folder / 'random.yaml'))}"
        )
