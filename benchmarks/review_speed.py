"""How many pairs a minute the page of `rlaif review` can take: a script answers as fast as it goes.

A run on the scripted engine with replies of 150 words is reviewed in a headless Chromium: by keys
in a window of 1280 pixels, then by clicks on the buttons in one of 390. The script reads no text,
so the figure bounds what the page and the disk cost, not how fast a person is.

    python -m benchmarks.review_speed [--quick]

The last line is one JSON object.
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.browser import Page, find_browser, open_browser
from benchmarks.report_size import NUM_WORDS, make_pairs
from benchmarks.scripted_chain import start_scripted
from pipeline.review.labels import LabelFiles
from pipeline.review.pairs import draw_pairs
from pipeline.review.server import ReviewServer
from pipeline.review.session import Review

BEGIN = """document.getElementById('name').value = '{}';
document.getElementById('begin').requestSubmit();"""
DONE = "document.getElementById('progress').textContent.startsWith('{} done')"
CENTER = """(() => {
const box = document.querySelector('[data-answer=SIDE]').getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2, innerWidth]; })()"""


async def review(page: Page, url: str, name: str, width: int, number: int) -> float:
    """Answer pairs in one window; returns pairs a minute."""
    await page.open("about:blank")
    await page.open(url, width=width)
    await page.until("document.readyState === 'complete' && location.hash")
    await page.evaluate(BEGIN.format(name))
    await page.until(DONE.format(0))
    started = time.perf_counter()
    for done in range(number):
        side = "left" if done % 2 else "right"
        if width > 600:
            key = {"key": "1" if side == "left" else "3"}
            await page.call("Input.dispatchKeyEvent", type="keyDown", **key)
            await page.call("Input.dispatchKeyEvent", type="keyUp", **key)
        else:
            x, y, shown = await page.evaluate(CENTER.replace("SIDE", side))
            assert shown == width and 0 < x < width, "a button is outside of the window"
            button = {"x": x, "y": y, "button": "left", "clickCount": 1}
            await page.call("Input.dispatchMouseEvent", type="mousePressed", **button)
            await page.call("Input.dispatchMouseEvent", type="mouseReleased", **button)
        await page.until(DONE.format(done + 1))
    return 60 * number / (time.perf_counter() - started)


async def measure(program: str, number: int) -> dict[str, float]:
    """Pairs a minute by keys, and by clicks at a phone's width."""
    with tempfile.TemporaryDirectory() as scratch:
        run = start_scripted(Path(scratch), 2 * number, num_words=NUM_WORDS)
        await make_pairs(run)
        files = LabelFiles(Path(scratch) / "labels", run.run_id)
        state = Review(draw_pairs(run, limit=2 * number, seed=0), files, seed=0)
        with ReviewServer(state, run.run_id) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            async with open_browser(program) as page:
                keys = await review(page, server.url, "keys", 1280, number)
                clicks = await review(page, server.url, "clicks", 390, number)
            server.shutdown()
        assert len(files.labels) == 2 * number, "a label was lost"
        files.close()
    return {"keys_per_minute": round(keys), "clicks_per_minute": round(clicks), "labels": number}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30 pairs instead of 200")
    arguments = parser.parse_args()
    program = find_browser()
    if program is None:
        raise SystemExit("no Chromium is on the PATH")
    print(json.dumps(asyncio.run(measure(program, 30 if arguments.quick else 200))))


if __name__ == "__main__":
    main()
