"""Are the pages usable by everyone? axe-core reads each of them in a headless Chromium.

    npm install axe-core                    # anywhere
    python -m benchmarks.accessible node_modules/axe-core/axe.min.js PAGE ...

PAGE is a file or an address: report.html of a run, sweep.html, the nights of a recipe, the address
that `rlaif review` prints, site/index.html. Each is read in light and dark, in windows of 1,280 and
of 390 CSS pixels, with its details open. The last line is one JSON object: by page, how often each
rule of axe is violated in the four, and as `overflow` the CSS pixels by which the page is wider
than its window.

Does not: see what axe does not, such as whether a name or an order makes sense.
"""

import argparse
import asyncio
import json
from collections import Counter
from pathlib import Path

from benchmarks.browser import Page, find_browser, open_browser

WIDTHS = (1280, 390)
THEMES = ("light", "dark")
OPEN = """(async () => {
  document.querySelectorAll('details').forEach(one => one.open = true);
  const closed = [...document.querySelectorAll('main [aria-expanded=false]')];
  closed.slice(0, 3).forEach(one => one.click());
  await new Promise(resolve => setTimeout(resolve, 300));
})()"""
RUN = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(one =>
  [one.id, one.nodes.map(node => node.target.join(' ') + ': ' + node.failureSummary)]))"""
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


async def violations(page: Page, axe: str, address: str) -> Counter[str]:
    """By rule of axe, the elements that violate it, summed over widths and themes."""
    counts: Counter[str] = Counter()
    for width in WIDTHS:
        for theme in THEMES:
            media = [{"name": "prefers-color-scheme", "value": theme}]
            await page.call("Emulation.setEmulatedMedia", features=media)
            await page.open("about:blank")
            await page.open(address, width=width)
            await page.until("location.protocol !== 'about:' && document.readyState === 'complete'")
            # A page that keeps its theme would be seen in the first one alone.
            await page.evaluate("localStorage.clear()")
            await page.evaluate(OPEN)
            await page.evaluate(axe)
            for rule, places in await page.evaluate(RUN):
                counts[rule] += len(places)
                print(f"{address} {width} {theme} {rule}", *places, sep="\n    ")
            counts["overflow"] += max(0, int(await page.evaluate(OVERFLOW)))
    return +counts


async def measure(program: str, axe: str, pages: list[str]) -> dict[str, dict[str, int]]:
    """By page, how often each rule is violated."""
    results = {}
    async with open_browser(program) as tab:
        for name in pages:
            address = name if "://" in name else Path(name).resolve().as_uri()
            results[name] = dict(await violations(tab, axe, address))
    return results


def main() -> None:
    """Read the pages, print what is wrong and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("axe", type=Path, help="axe.min.js")
    parser.add_argument("pages", nargs="+", help="files or addresses")
    arguments = parser.parse_args()
    program = find_browser()
    if program is None:
        raise SystemExit("no Chromium is on the PATH")
    axe = arguments.axe.read_text(encoding="utf-8")
    print(json.dumps(asyncio.run(measure(program, axe, arguments.pages))))


if __name__ == "__main__":
    main()
