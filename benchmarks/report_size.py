"""Size of report.html, seconds to write it, and how soon a browser shows and searches its pairs.

A run on the scripted engine, whose replies have 150 words, gets its report. The page is opened from
its file in a headless Chromium where there is one: from the start of navigation until the first
pair is on the page, and from a search to its result, which unpacks every text; medians of five.

    python -m benchmarks.report_size [--quick]

The last line is one JSON object.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.browser import find_browser, open_browser
from benchmarks.scripted_chain import start_scripted
from pipeline.report import write_report
from pipeline.run.context import open_context
from pipeline.run.phases import preference_chain, supervised_chain
from pipeline.store import RunDir, RunLock

NUM_WORDS = 150
SHOWN = "document.querySelector('.pair')"
SEARCH = """(async () => {
  const box = document.getElementById('find'), start = performance.now();
  const before = document.getElementById('count').textContent;
  box.value = 'resume'; box.dispatchEvent(new Event('input'));
  const unchanged = text => text === before || text.startsWith('Searching');
  while (unchanged(document.getElementById('count').textContent))
    await new Promise(resolve => setTimeout(resolve, 5));
  return performance.now() - start;
})()"""


async def load(program: str, page: Path) -> dict[str, float]:
    """Milliseconds until the first pair is shown, and until a search has its result."""
    times, searches = [], []
    async with open_browser(program) as tab:
        for _ in range(5):
            await tab.open("about:blank")
            await tab.open(page.as_uri())
            await tab.until(f"location.protocol === 'file:' && {SHOWN}")
            times.append(await tab.until(SHOWN))
            searches.append(float(await tab.evaluate(SEARCH)))
    return {"load_ms": statistics.median(times), "search_ms": statistics.median(searches)}


async def make_pairs(run: RunDir) -> None:
    """All rows of a run, without its data sets."""
    with RunLock(run.root):
        ctx = open_context(run)
        await supervised_chain(ctx)
        await preference_chain(ctx)


def measure(run: RunDir) -> dict[str, float]:
    """Figures of one run's page."""
    started = time.perf_counter()
    page = write_report(run)
    figures = {"write_s": time.perf_counter() - started, "size_mib": page.stat().st_size / 2**20}
    if program := find_browser():
        figures |= asyncio.run(load(program, page))
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> None:
    """Measure each size, print a line each and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 pairs only")
    parser.add_argument("--keep", type=Path, help="folder in which to keep the runs")
    arguments = parser.parse_args()
    results = {}
    for num_pairs in (1_000,) if arguments.quick else (1_000, 10_000):
        with tempfile.TemporaryDirectory() as scratch:
            folder = (arguments.keep or Path(scratch)) / str(num_pairs)
            run = RunDir(folder / "runs" / "run")
            if not run.root.exists():
                start_scripted(folder, num_pairs, num_words=NUM_WORDS)
            asyncio.run(make_pairs(run))
            results[num_pairs] = measure(run)
            print(f"{num_pairs:>7,} pairs: {results[num_pairs]}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
