"""Bad inputs: does every mistake end as one line, with exit code 2 and nothing written?

Each input of the tables in `tests/borders/bad_inputs/` is one command in a forked child, with
limits on its time and memory, in a folder of its own. The commands are what a person types; the
inputs are broken or hostile files, arguments, folders and variables. One process per core, forked
from this one when everything is imported, takes the inputs in turn.

    python -m benchmarks.bad_inputs [--quick] [--family NAME]

Prints what is not as it should be and a table; the last line is one JSON object: `inputs`, a list
for each fault (`tests/borders/trial.py` says what each means), and `counts` by family.
"""

import argparse
import codecs
import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import pyarrow.parquet as pq

import pipeline
from tests.borders.tables import FAMILIES, cases, quick_cases
from tests.borders.trial import FAULTS, Case, execute, try_case
from tests.borders.world import prepare

HEAVY = ("worker", "vllm", "__main__")
"""Parts of the names of modules that no command of the tables needs."""


def warm_up() -> None:
    """Import what the commands would import, so that a child starts at once."""
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if not any(part in module.name for part in HEAVY):
            importlib.import_module(module.name)
    for name in ("models.scripted", "rich.table"):
        importlib.import_module(name)
    for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "unicode-escape", "idna"):
        codecs.lookup(name)


def good_run(folder: Path) -> tuple[Path, str]:
    """A finished run, and the id of a row of its pairs."""
    prepare(folder, "plain", folder)
    argv = ("run", "r.yaml", "--no-prefect", "--run-id", "base")
    ended = execute(Case("good", "run", argv, slow=True), folder)
    if ended.code != 0:
        raise SystemExit(f"the good run ended with {ended.code}:\n{ended.out}\n{ended.err}")
    run = folder / "out/runs/base"
    rows = pq.read_table(run / "dataset/preference.parquet", columns=["row_id"])[0].to_pylist()
    return run, rows[0]


def try_all(chosen: list[Case]) -> dict[str, list[str]]:
    """For each fault, the inputs that show it, with what was seen."""
    found: dict[str, list[str]] = {fault: [] for fault in FAULTS}
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as name:
        root = Path(name).resolve()
        os.chmod(root, 0o755)
        run, row = good_run(root / "good")
        folders = (root / str(number) for number in range(len(chosen)))
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:
            results = pool.map(try_case, chosen, folders, repeat(run), repeat(row))
            for case, faults in zip(chosen, results, strict=True):
                for fault, seen in faults.items():
                    found[fault].append(f"{case.family}: {case.name}")
                    print(f"{fault:<18} {case.family}: {case.name} -> {seen}", flush=True)
    return found


def main() -> None:
    """Try all inputs, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one input of six")
    parser.add_argument("--family", choices=FAMILIES, help="this family only")
    arguments = parser.parse_args()
    started, select = time.perf_counter(), quick_cases if arguments.quick else cases
    families = [arguments.family] if arguments.family else list(FAMILIES)
    warm_up()
    gc.freeze()  # else the first collection in each child copies every page
    chosen = {family: list(select(family)) for family in families}
    found = try_all([case for cases_of in chosen.values() for case in cases_of])
    counts = {
        family: {"inputs": len(cases_of)}
        | {fault: sum(n.startswith(f"{family}: ") for n in found[fault]) for fault in FAULTS}
        for family, cases_of in chosen.items()
    }
    print(f"\n{'family':<14}{'inputs':>8}" + "".join(f"{fault:>19}" for fault in FAULTS))
    for family, row in counts.items():
        print(f"{family:<14}{row['inputs']:>8}" + "".join(f"{row[f]:>19}" for f in FAULTS))
    total = sum(map(len, chosen.values()))
    seconds = round(time.perf_counter() - started)
    print(json.dumps({"inputs": total, **found, "counts": counts, "seconds": seconds}))


if __name__ == "__main__":
    main()
