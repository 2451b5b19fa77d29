"""Bad inputs of every family end as one line, or as what is right for them.

`python -m benchmarks.bad_inputs` tries all; this is one of six of them, in a process of their own.
"""

import json
import subprocess
import sys

import pytest

from pipeline.config.paths import PROJECT_ROOT
from tests.borders.tables import FAMILIES, cases, quick_cases
from tests.borders.trial import FAULTS


@pytest.mark.slow
def test_every_bad_input_ends_well() -> None:
    command = [sys.executable, "-m", "benchmarks.bad_inputs", "--quick"]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-2000:]
    *seen, last = ended.stdout.splitlines()
    result = json.loads(last)
    counts = {family: row["inputs"] for family, row in result["counts"].items()}
    assert counts == {family: len(quick_cases(family)) for family in FAMILIES}
    assert not any(result[fault] for fault in FAULTS), "\n".join(seen)


def test_quick_version_has_enough_inputs() -> None:
    assert sum(len(quick_cases(family)) for family in FAMILIES) >= 300
    assert sum(len(cases(family)) for family in FAMILIES) >= 1000
    assert all(len(quick_cases(family)) >= 10 for family in FAMILIES)
