"""A week of nights on the pocket model: what does each one make, what is refused, what is lost?

    python -m benchmarks.week [--quick] [--folder FOLDER [--steps N]]

The demo's recipe becomes a series: 24 new prompts a night with two samples each, their labels, the
audits and the data set, by `rlaif nightly` in a forked process. On the way a principle is
reworded, the judge answers at random for a night, and a night ends by SIGKILL while it labels.
Seven versions come out, and a last call finds nothing to do.

With a folder, the week continues where it is; `--steps` ends it after that many nights.

A table, then one JSON object: `nights`, one entry each, and over all of them `versions`, `problems`
(files that do not match their hash), `doubled` and `refused_rows` (rows of the last version that
are in it twice, or come from the refused night) and `left_behind` (processes that outlived the
killed night by a minute).

Does not: revise, train or evaluate policies, which would take most of the time; a week adds nothing
to them that a single run does not have.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml

from pipeline.cli import main as main_command
from pipeline.config import RunConfig
from pipeline.config.factories import recipe_factory
from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.dataset import load_dataset
from pipeline.data.verify import verify
from pipeline.engines.scripted import ScriptedEngine
from pipeline.engines.vllm.settings import CPU_ENVIRONMENT, vllm_environment
from pipeline.errors import EXIT_AUDIT
from pipeline.ids import uniform
from pipeline.impact.version import relabeled
from pipeline.run.audit_gate import audit_path
from pipeline.run.nightly import nightly_runs
from pipeline.run.start import runs_root
from pipeline.store import RunDir, read_json
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import PROMPTS
from pipeline.types import Messages

RECIPE = PROJECT_ROOT / "flows" / "configs" / "demo.yaml"
CONSTITUTION = PROJECT_ROOT / "constitutions" / "balanced.yaml"
SERIES = "week"
PROMPTS_A_NIGHT, QUICK_PROMPTS = 24, 8
PLAIN, EDITED, BAD_JUDGE, CORRECTED, KILLED, RESUMED, IDLE = (
    "new prompts",
    "a principle is reworded",
    "a judge that answers at random",
    "the judge is corrected",
    "killed while it labels",
    "started again",
    "nothing is new",
)
WEEK = (PLAIN, PLAIN, EDITED, BAD_JUDGE, CORRECTED, KILLED, RESUMED, PLAIN, PLAIN, IDLE)
WITHOUT_PROMPTS = (RESUMED, IDLE)
ENDS = {BAD_JUDGE: EXIT_AUDIT, KILLED: -signal.SIGKILL}
"""Exit codes of the nights that do not end with 0."""
REWORDED = {
    "harm-01": {
        "critique_request": "Check whether the last response is risky or incautious.",
        "revision_request": "Change the response so that it is careful and not risky.",
        "comparison_request": "Which response is less risky and less incautious?",
    }
}
KEYS = (
    "new", "pairs", "accuracy", "relabeled", "flipped", "known", "audit", "version", "minutes"
)  # fmt: skip


@recipe_factory
def random_judge() -> ScriptedEngine:
    """Prefers responses by chance, but the same one in both orders, so that only known answers
    give it away.
    """

    def scores(messages: Messages, options: Sequence[str]) -> list[float | None]:
        a, b = (part.split("]]]")[0] for part in messages[-1].content.split("[[[")[1:])
        is_first = uniform("week", a.strip()) > uniform("week", b.strip())
        return [-0.05, -3.0] if is_first else [-3.0, -0.05]

    return ScriptedEngine(lambda messages: "A", scores, name="at random", keep_calls=False)


def write_night(folder: Path, step: int, num_prompts: int) -> Path:
    """Recipe, constitution and prompts of a night of the week; returns the recipe."""
    so_far = WEEK[: step + 1]
    lines = (PROJECT_ROOT / "prompts/sets/pocket_train.jsonl").read_text("utf-8").splitlines()
    asked = num_prompts * sum(event not in WITHOUT_PROMPTS for event in so_far)
    (folder / "prompts.jsonl").write_text("\n".join(lines[:asked]) + "\n", "utf-8")
    constitution = yaml.safe_load(CONSTITUTION.read_text("utf-8"))
    for principle in constitution["principles"]:
        principle |= REWORDED.get(principle["id"], {}) if EDITED in so_far else {}
    (folder / "constitution.yaml").write_text(yaml.safe_dump(constitution, sort_keys=False))
    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text("utf-8"))
    recipe |= {"name": SERIES, "constitution": str(folder / "constitution.yaml")}
    recipe["prompts"] |= {
        "train": [str(folder / "prompts.jsonl")],
        "limit": None,
        "heldout": [],
        "heldout_limit": None,
    }
    recipe["policy"]["model"] = str(folder / "model")
    recipe["supervised"] = {"enabled": False}
    recipe["preference"]["sample"]["num_samples"] = 2
    recipe["preference"]["train"] = None
    recipe["evaluation"] = {"enabled": False, "oracle": recipe["evaluation"]["oracle"]}
    recipe["execution"]["shard_size"] = 8
    if so_far[-1] == BAD_JUDGE:
        recipe["judge"] = {"type": "scripted", "script": "benchmarks.week:random_judge"}
    RunConfig.model_validate(recipe)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return path


def take_night(folder: Path, step: int, num_prompts: int) -> dict[str, Any]:
    """One call of `rlaif nightly`, and what became of it."""
    event = WEEK[step]
    recipe = write_night(folder, step, num_prompts)
    before = newest_night()
    started = time.monotonic()
    log = folder / f"{step}.log"
    process = start_night(recipe, log)
    left_behind = kill_while_labeling(process, before) if event == KILLED else None
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    minutes = (time.monotonic() - started) / 60
    if code != ENDS.get(event, 0):
        raise SystemExit(f"night {step} ({event}) ended with {code}; see {log}")
    after = newest_night()
    if after is None or (after == before) is not (event in WITHOUT_PROMPTS):
        raise SystemExit(f"night {step} ({event}) made a run where none was due, or none")
    facts = {"event": event, "run": after.run_id, "minutes": round(minutes, 1)}
    if event == IDLE:
        return {**facts, "new": 0, "published": False}
    if event == KILLED:
        return {**facts, **figures(after), "left_behind": left_behind}
    return {**facts, **figures(after)}


def start_night(recipe: Path, log: Path) -> int:
    """`rlaif nightly` in a forked child with a session of its own; returns its id.

    Forked, since the imports of vLLM, which are there already, take longer than such a night.
    """
    if child := os.fork():
        return child
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["rlaif", "nightly", str(recipe), "--no-prefect"]
    code: object = 1
    try:
        main_command()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 0)


def import_vllm() -> None:
    """What the first night would import otherwise, and each night again."""
    with vllm_environment(CPU_ENVIRONMENT), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vllm.v1.engine.llm_engine  # noqa: F401


def newest_night() -> RunDir | None:
    """The run of the last call that made one."""
    runs = [RunDir(path.parent) for path in runs_root().glob("*/run.json")]
    nights = [run for run in runs if run.info().get("series") == SERIES]
    return max(nights, key=lambda run: run.run_id, default=None)


def kill_while_labeling(process: int, before: RunDir | None) -> bool:
    """SIGKILL once the night has labels, some of them in a shard that is not finished; whether a
    process of it is left a minute later.
    """
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        run = newest_night()
        judging = run.root / "preference" / "judge" if run and run != before else None
        if judging and judging.is_dir() and any(judging.iterdir()):
            break
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    # The dead child itself stays a member of its group until it is waited for.
    group = [p for p in psutil.process_iter() if p.pid != process and _group(p) == process]
    return bool(psutil.wait_procs(group, timeout=60)[1])


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def figures(run: RunDir) -> dict[str, Any]:
    """What a night asked and made again, and how it ended."""
    again, dataset, audit = relabeled(run), load_dataset(run), read_json(audit_path(run))
    known = next(
        (
            finding["value"]
            for judge in (audit or {}).get("judges", ())
            for finding in judge["findings"]
            if finding["name"] == "known" and not finding["scope"]
        ),
        None,
    )
    pairs = dataset.sets["preference"] if dataset else None
    labels = (read_json(run.metrics) or {}).get("labels") or {}
    accuracy = labels.get("accuracy_kept")
    return {
        "new": sum(1 for _ in stage_rows(run.root, PROMPTS)),
        "relabeled": again.total.asked_again if again else 0,
        "flipped": again.total.relabeled if again else 0,
        "known": None if known is None else round(known, 3),
        "audit": None if audit is None else "passed" if audit["passed"] else "failed",
        "pairs": pairs.rows - pairs.from_parent if pairs else None,
        "accuracy": round(accuracy["share"], 3) if accuracy else None,
        "version": dataset.version if dataset else None,
        "published": dataset is not None,
    }


def whole_week(nights: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The JSON line, once all nights are done."""
    runs = nightly_runs(SERIES)
    refused = {night["run"] for night in nights if night["event"] == BAD_JUDGE}
    columns = pq.read_table(
        runs[-1].dataset / "preference.parquet", columns=["row_id", "run_id"]
    ).to_pydict()
    return {
        "nights": nights,
        "versions": [dataset.version for run in runs if (dataset := load_dataset(run))],
        "pairs": len(columns["row_id"]),
        "problems": sum(len(verify(run)) for run in runs),
        "doubled": sum(count - 1 for count in Counter(columns["row_id"]).values()),
        "refused_rows": sum(run_id in refused for run_id in columns["run_id"]),
        "left_behind": any(night.get("left_behind") for night in nights),
    }


def print_table(nights: Sequence[dict[str, Any]]) -> None:
    """A line a night."""
    print(f"{'night':<32}" + "".join(f"{key:>11}" for key in KEYS))
    for night in nights:
        cells = ("-" if night.get(key) is None else str(night[key]) for key in KEYS)
        print(f"{night['event']:<32}" + "".join(f"{cell:>11}" for cell in cells))


def main() -> None:
    """Take the nights that are left, then print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROMPTS} prompts a night")
    parser.add_argument("--folder", type=Path, help="where the week is kept")
    parser.add_argument("--steps", type=int, default=len(WEEK), help="nights of this call")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["RLAIF_OUTPUTS"] = str(folder / "outputs")
        if not (folder / "model").exists():
            # A copy: weights that change while this runs would be refused.
            shutil.copytree(PROJECT_ROOT / "models" / "pocket", folder / "model")
        path = folder / "nights.json"
        nights: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        import_vllm()
        num_prompts = QUICK_PROMPTS if arguments.quick else PROMPTS_A_NIGHT
        for step in range(len(WEEK))[len(nights) :][: arguments.steps]:
            nights.append(take_night(folder, step, num_prompts))
            path.write_text(json.dumps(nights, indent=1))
            print(f"{step}: {WEEK[step]}, {nights[-1]['minutes']} minutes", flush=True)
        print_table(nights)
        if len(nights) == len(WEEK):
            print(json.dumps(whole_week(nights)))


if __name__ == "__main__":
    main()
