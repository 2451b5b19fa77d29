"""One chain on one vLLM server: ours, other libraries, a plain script, and vLLM alone.

    python -m benchmarks.peers [--quick] [--contenders NAME ...] [--keep FOLDER]

256 prompts of the pocket world are sampled, critiqued, revised and judged in both orders, by one
local vLLM server with the flags of docs/engines.md. Its prefix cache is empty before each run.
Every contender has three turns in rotating order, one run that is killed at half of its requests
and started again, and one in which the server answers 500 to one prompt for ever.

The libraries are installed under `outputs/peers/`, each in an environment of its own; one that
cannot be installed is named with its error. Each result is a file of its own in the folder of
`--keep`, and a stopped call continues there. `--quick`: 48 prompts, one turn, ours, the plain
script and vLLM alone.

A table, then one JSON object: `contenders` with `wall_s` (from command to exit), `requests_s` (from
the server's first request to its last answer), `before_s` and `after_s` (what the command does
around them), `requests`, `rows_lost`, `paid_twice_share` (of the requests answered before the kill)
and what the failing prompt did; `goals` with a value, the limit, and whether it is met.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import yaml

from benchmarks.peers_figures import Result, chats, goals, paid_twice, seen, summary
from pipeline.config.paths import PROJECT_ROOT
from pipeline.prefect_server import ensure_server, stop_server
from pipeline.store.shards import stage_rows

SCRIPTS = PROJECT_ROOT / "benchmarks" / "peers"
ENVIRONMENTS = PROJECT_ROOT / "outputs" / "peers"
PROMPTS = PROJECT_ROOT / "prompts" / "sets" / "pocket_train.jsonl"
TURNS = 3
LIMIT_S = 150.0
"""Seconds after which a run is ended; one that hangs is no reason to wait for ever."""
SERVER_LIMIT_S = 600.0
SERVER = (
    *("-m", "vllm.entrypoints.openai.api_server", "--model", "models/pocket"),
    *("--served-model-name", "pocket", "--host", "127.0.0.1", "--dtype", "float32"),
    *("--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096"),
    *("--block-size", "32", "--gpu-memory-utilization", "0.3", "--enable-prompt-tokens-details"),
    *("--disable-uvicorn-access-log", "--middleware", "meter.Meter"),
)


@dataclass(frozen=True)
class Contender:
    """How one is started; `{out}` is its folder, `{recipe}` the recipe of our own."""

    run: tuple[str, ...]
    safe: tuple[str, ...] = ()
    """With what it has against accidents; by default as `run`."""
    again: tuple[str, ...] = ()
    """After a kill; by default as `safe`."""
    packages: tuple[str, ...] = ()
    """What its environment holds; none for our own."""
    keeps_nothing: bool = False
    """An accident costs all of it, so none is measured."""


OURS = ("-m", "pipeline.cli", "run", "{recipe}", "--run-id", "run")
RESUME = ("-m", "pipeline.cli", "resume", "{out}/runs/run")
CONTENDERS = {
    "ours": Contender((*OURS, "--no-prefect"), again=(*RESUME, "--no-prefect")),
    "ours_prefect": Contender(OURS, again=RESUME),
    "plain": Contender(("plain.py", "{out}"), safe=("plain.py", "{out}", "append")),
    "alone": Contender(("alone.py", "{out}"), keeps_nothing=True),
    "datatrove": Contender(
        ("with_datatrove.py", "{out}"),
        # Its extra `inference` asks for sglang and CUDA; an endpoint needs these alone.
        packages=("datatrove==0.10.1", "httpx", "aiosqlite", "aiofiles", "orjson", "xxhash"),
    ),
    "distilabel": Contender(
        ("with_distilabel.py", "{out}", "256"),
        safe=("with_distilabel.py", "{out}", "50", "cache"),
        # It uses the last two without declaring them.
        packages=("distilabel[openai]==1.5.3", "requests", "pillow"),
    ),
    "data-designer": Contender(
        ("with_designer.py", "{out}", "1000"),
        safe=("with_designer.py", "{out}", "64"),
        again=("with_designer.py", "{out}", "64", "resume"),
        packages=("data-designer==0.9.7",),
    ),
}
QUICK = ("ours", "plain", "alone")


def install(name: str, packages: Sequence[str]) -> str:
    """Make the environment of a contender; returns why that failed, else an empty text."""
    folder, mark = ENVIRONMENTS / name, ENVIRONMENTS / name / "installed"
    if not packages or (mark.is_file() and mark.read_text().split() == [*packages]):
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return (errors or ["pip failed"])[-1]
    mark.write_text("\n".join(packages))
    return ""


class Bench:
    """The server, and what is the same for all contenders.

    Args:
        folder: holds the prompts, the recipe, what the contenders write, and the server's log.
    """

    def __init__(self, folder: Path, num_prompts: int) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        """The contender that works, so that it ends with a stopped call."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.root = f"http://127.0.0.1:{free.getsockname()[1]}"
        rows = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
        self.prompts = [row["prompt"] for row in rows if "prompt" in row][:num_prompts]
        lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in self.prompts)
        (folder / "prompts.jsonl").write_text(lines, "utf-8")
        recipe = yaml.safe_load((SCRIPTS / "recipe.yaml").read_text())
        recipe["policy"]["base_url"] = f"{self.root}/v1"
        recipe["prompts"]["train"] = [str(folder / "prompts.jsonl")]
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    @contextmanager
    def server(self) -> Iterator[None]:
        """The vLLM server runs inside the block; its first score has been made, which is slow."""
        environment = os.environ | {
            "PYTHONPATH": str(SCRIPTS),
            "OMP_WAIT_POLICY": "PASSIVE",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
        }
        command = [sys.executable, *SERVER, "--port", self.root.rpartition(":")[2]]
        with (self.folder / "server.log").open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                self._await_server(process)
                for name in ("ours", "alone"):
                    self.work(name, CONTENDERS[name].run, self.fresh(name))
                yield
            finally:
                for each in (*self._running, process):
                    end(each)

    def _await_server(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + SERVER_LIMIT_S
        while time.monotonic() < until and process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.root}/health").is_success:
                    return
            time.sleep(0.5)
        raise SystemExit(f"the server did not start; see {self.folder / 'server.log'}")

    def ask(self, path: str) -> Any:
        """What the meter answers; see `peers/meter.py`."""
        return httpx.get(f"{self.root}/peers/{path}", timeout=60).json()

    def reset(self) -> None:
        """Empty the prefix cache and the meter. The server refuses while it still works."""
        while not httpx.post(f"{self.root}/reset_prefix_cache", timeout=60).json().get("success"):
            time.sleep(0.5)
        self.ask("reset")

    def fresh(self, name: str) -> Path:
        """An empty folder for a contender."""
        out = self.folder / "out" / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        return out

    def start(self, name: str, arguments: Sequence[str], out: Path) -> subprocess.Popen[bytes]:
        """Start a contender in a process group of its own."""
        python = str(ENVIRONMENTS / name / "bin" / "python")
        if not CONTENDERS[name].packages:
            python = sys.executable
        recipe = self.folder / "recipe.yaml"
        values = [each.format(out=out, recipe=recipe) for each in arguments]
        environment = os.environ | {
            "PEERS_URL": f"{self.root}/v1",
            "PEERS_PROMPTS": str(self.folder / "prompts.jsonl"),
            "RLAIF_OUTPUTS": str(out),
            "RLAIF_STATE": str(self.folder / "state"),
            "DATA_DESIGNER_HOME": str(out / "home"),
            "HF_HOME": str(out / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OTEL_SDK_DISABLED": "true",
        }
        is_ours = name.startswith("ours")
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [python, *values],
                cwd=PROJECT_ROOT if is_ours else SCRIPTS,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running = [process]
        return process

    def work(self, name: str, arguments: Sequence[str], out: Path) -> Result:
        """One run from its command to its exit, and what the server saw of it."""
        self.reset()
        started = time.time()
        process = self.start(name, arguments, out)
        try:
            code: int | None = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
        ended = time.time()
        end(process)
        return {
            "exit_code": code,
            "rows_lost": len(self.prompts) - count_rows(name, out),
            **seen(self.ask("calls"), started, ended),
        }

    def turn(self, name: str) -> Result:
        """One undisturbed run."""
        return self.work(name, CONTENDERS[name].run, self.fresh(name))

    def kill(self, name: str, after: int) -> Result:
        """A run that is ended by SIGKILL after so many model calls, and started again."""
        contender, out = CONTENDERS[name], self.fresh(name)
        safe = contender.safe or contender.run
        self.reset()
        process = self.start(name, safe, out)
        until = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < until:
            if len(chats(self.ask("calls"))) >= after:
                break
            time.sleep(0.1)
        killed = time.time()
        end(process)
        before = [call for call in chats(self.ask("calls")) if (call["end"] or killed) < killed]
        result = self.work(name, contender.again or safe, out)
        return {**result, **paid_twice(before, chats(self.ask("calls")))}

    def poison(self, name: str) -> Result:
        """A run in which one prompt is never answered."""
        self.ask(f"poison?text={quote(self.prompts[len(self.prompts) // 2])}")
        try:
            contender = CONTENDERS[name]
            result = self.work(name, contender.safe or contender.run, self.fresh(name))
            result["tries"] = sum(call["status"] == 500 for call in self.ask("calls"))
            return result
        finally:
            self.ask("poison?text=")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def count_rows(name: str, out: Path) -> int:
    """Prompts with a revision in what a contender wrote."""
    if name.startswith("ours"):
        rows = stage_rows(out / "runs" / "run", "supervised/revise-1")
        return sum(row.status == "ok" for row in rows)
    found = 0
    for path in (out / "rows").glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            results = row.get("metadata", {}).get("rollout_results", [row])
            found += any(isinstance(r, dict) and _revision(r) for r in results)
    return found


def _revision(row: Mapping[str, Any]) -> Any:
    return row.get("revision") or (row.get("result") or {}).get("revision")


def plan(names: Sequence[str], turns: int) -> Iterator[tuple[str, str]]:
    """Part and contender, in order: rotating turns first, then kills and failing prompts."""
    for turn in range(turns):
        shift = turn * len(names) // turns
        yield from ((f"turn-{turn}", name) for name in (*names[shift:], *names[:shift]))
    keepers = [name for name in names if not CONTENDERS[name].keeps_nothing]
    yield from ((part, name) for part in ("kill", "poison") for name in keepers)


def measure(folder: Path, names: Sequence[str], num_prompts: int, turns: int) -> dict[str, Result]:
    """All that is not in the folder yet; returns the line of each contender."""
    errors = {name: install(name, CONTENDERS[name].packages) for name in names}
    results: dict[str, dict[str, Result]] = {
        name: {"error": {"text": error}} if error else {} for name, error in errors.items()
    }
    steps = list(plan([name for name in names if not errors[name]], turns))
    if any(not result_file(folder, *step).exists() for step in steps):
        bench = Bench(folder, num_prompts)
        with bench.server(), prefect_server(folder, names):
            for part, name in steps:
                if not result_file(folder, part, name).exists():
                    if part == "kill":
                        half = len(bench.prompts) * 3 // 2  # sample, critique, revise
                        result = bench.kill(name, half)
                    else:
                        result = bench.poison(name) if part == "poison" else bench.turn(name)
                    result_file(folder, part, name).write_text(json.dumps(result))
                    print(f"{part:<8}{name:<14}{json.dumps(result)}", flush=True)
    for part, name in steps:
        results[name][part] = json.loads(result_file(folder, part, name).read_text())
    return summary(results)


def result_file(folder: Path, part: str, name: str) -> Path:
    """Where one result is kept."""
    return folder / f"{part}.{name}.json"


@contextmanager
def prefect_server(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """A Prefect server of its own, already running, where a contender needs one."""
    if "ours_prefect" not in names:
        yield
        return
    os.environ["RLAIF_STATE"] = str(folder / "state")
    ensure_server()
    try:
        yield
    finally:
        stop_server()


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="48 prompts, one turn, three of them")
    parser.add_argument("--contenders", nargs="+", choices=tuple(CONTENDERS))
    parser.add_argument("--keep", type=Path, help="folder for results and what was written")
    arguments = parser.parse_args()
    # Where it is set, as in many containers, each start would compile its packages again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    names = arguments.contenders or (QUICK if arguments.quick else tuple(CONTENDERS))
    num_prompts, turns = (48, 1) if arguments.quick else (256, TURNS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; `--keep` continues"))
    with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        table = measure(folder, names, num_prompts, turns)
    keys = (
        *("wall_s", "requests_s", "before_s", "after_s", "requests", "rows_lost"),
        *("paid_twice_share", "delay_by_it_s", "tries_of_it", "lost_to_one_prompt"),
    )
    print(f"{'':<14}" + "".join(f"{key:>20}" for key in keys))
    for name, line in table.items():
        print(f"{name:<14}" + "".join(f"{line.get(key, '')!s:>20}" for key in keys))
    print(json.dumps({"prompts": num_prompts, "contenders": table, "goals": goals(table)}))


if __name__ == "__main__":
    main()
