"""How often is the alarm of a night wrong, and how often does it miss a judge that got worse?

    python -m benchmarks.night_alarms [--quick]

Simulated nights of a judge that finds 90 % of the known answers, for several numbers of answers a
night and of nights before. In half of them nothing has changed: an alarm is false. In the others
the judge finds the share that the page of the night says would be noticed: no alarm is a miss. The
same for the marks of `run/drift.py` when prompts and lengths come from one source every night.

A table, then one JSON object: `nights` of each kind in each line, the largest `false_alarms_share`
and `missed_share` of all lines, the share of false marks, what is stated (`ALPHA`, 1 - `POWER`),
and whether it is `kept`: no count is above the stated one by more than chance explains in one of
1,000.
"""

import argparse
import json
from typing import Any

import numpy as np

from pipeline.run.drift import lengths_differ, shares_differ
from pipeline.run.nights import ALPHA, POWER, Known, detected_share, judge_alarm, lower_tail

NIGHTS, QUICK_NIGHTS = 1000, 200
SHARE = 0.9
ANSWERS, BEFORE = (20, 40, 100), (1, 7, 60)


def alarm_rates(
    draw: np.random.Generator, answers: int, before: int, nights: int
) -> tuple[float, int, int]:
    """The share of known answers that is noticed, false alarms, and missed drifts.

    Each night has a past of its own, so that the nights are independent.
    """
    noticed, false, missed = [], 0, 0
    for _ in range(nights):
        past = Known(int(draw.binomial(answers * before, SHARE)), answers * before)
        false += judge_alarm(past, Known(int(draw.binomial(answers, SHARE)), answers))[0]
        least = detected_share(past, answers) or 0.0
        noticed.append(least)
        missed += not judge_alarm(past, Known(int(draw.binomial(answers, least)), answers))[0]
    return float(np.mean(noticed)), false, missed


def false_marks(draw: np.random.Generator, nights: int, prompts: int = 100) -> int:
    """Marks of a tag that every fifth prompt has and of lengths, where nothing has changed."""
    marks = 0
    for _ in range(nights):
        tags = [(int(draw.binomial(prompts, 0.2)), prompts) for _ in range(2)]
        lengths = [draw.lognormal(3, 0.8, prompts).round().tolist() for _ in range(2)]
        marks += shares_differ(*tags) + lengths_differ(*lengths)
    return marks


def explained(count: int, nights: int, share: float) -> bool:
    """Whether a count is what chance gives at this share, or less, in all but one of 1,000."""
    return 1 - lower_tail(count - 1, nights, share) > 0.001


def measure(nights: int) -> dict[str, Any]:
    """Print the table; returns the JSON line."""
    draw = np.random.default_rng(0)
    print(f"{'answers':>8}{'nights before':>15}{'noticed':>9}{'false':>7}{'missed':>8}")
    false_shares, missed_shares, kept = [], [], True
    for answers in ANSWERS:
        for before in BEFORE:
            noticed, false, missed = alarm_rates(draw, answers, before, nights)
            print(f"{answers:>8}{before:>15}{noticed:>9.2f}{false:>7}{missed:>8}")
            false_shares.append(false / nights)
            missed_shares.append(missed / nights)
            kept &= explained(false, nights, ALPHA) and explained(missed, nights, 1 - POWER)
    marks = false_marks(draw, nights)
    return {
        "nights": nights,
        "false_alarms_share": max(false_shares),
        "missed_share": max(missed_shares),
        "false_marks_share": marks / (2 * nights),
        "stated": [ALPHA, round(1 - POWER, 3)],
        "kept": kept and explained(marks, 2 * nights, ALPHA),
    }


def main() -> None:
    """Simulate, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_NIGHTS} nights")
    print(json.dumps(measure(QUICK_NIGHTS if parser.parse_args().quick else NIGHTS)))


if __name__ == "__main__":
    main()
