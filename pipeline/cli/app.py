"""The command `rlaif`: thin doors to what the package does.

Exit codes: 0 done; 1 a run stopped early, a training failed, or `verify` found problems;
2 a mistake that the user can correct, reported in one line; 3 the labels failed their audit.
Anything else is a bug and keeps its traceback.

Imports wait inside the commands, so that `rlaif --help` stays quick.
"""

import atexit
import gc
import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from typer.exceptions import TyperException

from pipeline.cli.constitution import constitution_app
from pipeline.cli.examples import show_examples
from pipeline.cli.judge_eval import judge_eval, judge_tune
from pipeline.cli.labels import labels_app
from pipeline.cli.terminal import AsJson, hold_standard_streams, print_json, say
from pipeline.config.paths import shown_path
from pipeline.errors import EXIT_AUDIT, EXIT_USER, ConfigError, PipelineError, TrainingError

EXIT_INTERRUPTED = 130
RUNS, RESULTS = "Make runs", "Look at a run"
LABELS, SERVER = "Constitutions, judges and labels", "The Prefect server"
"""Headings of the help."""

app = typer.Typer(
    name="rlaif",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A constitution in, a judged preference set and a better policy out.",
)

Recipe = Annotated[Path, typer.Argument(help="A recipe, such as flows/configs/demo.yaml.")]
Run = Annotated[str, typer.Argument(help="Id or folder of a run; `rlaif runs` lists them.")]
NoPrefect = Annotated[
    bool, typer.Option("--no-prefect", help="Run without the Prefect server and its records.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace a value, as in preference.train.beta=0.05."
    ),
]
RunId = Annotated[str | None, typer.Option(help="Name of the run folder.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"rlaif {importlib.metadata.version('rlaif-pipeline')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command(rich_help_panel=RUNS)
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make; must not exist.")],
    like: Annotated[
        str, typer.Option(help="The shipped constitution to begin with.")
    ] = "house_style",
) -> None:
    """Make a folder with a constitution, prompts and a recipe that runs as it is."""
    from pipeline.cli.init import init_folder

    init_folder(folder, like)


@app.command(rich_help_panel=RUNS)
def run(
    recipe: Recipe, overrides: Overrides = None, run_id: RunId = None, no_prefect: NoPrefect = False
) -> None:
    """Run a recipe from its prompts to its report."""
    from pipeline.cli.run import run_recipe

    run_recipe(recipe, run_id, overrides or (), with_prefect=not no_prefect)


@app.command(rich_help_panel=RUNS)
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    prompts: Annotated[int, typer.Option(help="Prompts of the pilot.")] = 8,
    json: AsJson = False,
) -> None:
    """Run a pilot of a few prompts and print what the whole run will take: rows, tokens, hours and
    money of each stage, with 95 % intervals.
    """
    from pipeline.cli.plan import make_plan, print_plan

    print_plan(make_plan(recipe, overrides or (), prompts), json)


@app.command(rich_help_panel=RUNS)
def sweep(
    recipe: Recipe,
    over: Annotated[
        list[str],
        typer.Option(metavar="FIELD=VALUE,VALUE", help="Values of a field; may be repeated."),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the folder for the page.")] = None,
    no_prefect: NoPrefect = False,
) -> None:
    """Run a recipe at several values and compare the policies on one page."""
    from pipeline.cli.run import sweep_recipe

    sweep_recipe(recipe, over, name, with_prefect=not no_prefect)


@app.command(rich_help_panel=RUNS)
def resume(run: Run, overrides: Overrides = None, no_prefect: NoPrefect = False) -> None:
    """Continue a run that was stopped; finished work is not repeated, and only its budget can be
    changed.
    """
    from pipeline.cli.constitution import resume_impact
    from pipeline.cli.run import resume_run
    from pipeline.run.start import find_run

    folder = find_run(run)
    if folder.info().get("impact_of"):
        resume_impact(folder)
    else:
        resume_run(run, overrides or (), with_prefect=not no_prefect)


@app.command(rich_help_panel=RUNS)
def nightly(recipe: Recipe, no_prefect: NoPrefect = False) -> None:
    """Add a data set version from new prompts, or under a changed constitution, and train on it."""
    from pipeline.cli.run import run_nightly

    run_nightly(recipe, with_prefect=not no_prefect)


@app.command(rich_help_panel=RUNS)
def check(
    files: Annotated[list[Path], typer.Argument(help="Recipes, constitutions, templates.")],
    overrides: Overrides = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the endpoints.")] = False,
    json: AsJson = False,
) -> None:
    """Check recipes, constitutions and templates; each endpoint is asked for one token."""
    from pipeline.cli.inspect import check_file

    checked = [check_file(path, overrides=overrides or (), offline=offline) for path in files]
    if json:
        print_json(checked)


@app.command(rich_help_panel=RESULTS)
def trace(
    row_id: Annotated[str, typer.Argument(help="Id of a row, such as a pair.")],
    run: Annotated[str | None, typer.Option(help="Search this run only.")] = None,
    json: AsJson = False,
) -> None:
    """Print where a row comes from: prompt, responses, critique, principle, judge, seeds."""
    from pipeline.cli.inspect import print_trace

    print_trace(row_id, run, json)


@app.command(rich_help_panel=RESULTS)
def why(
    what: Annotated[str, typer.Argument(help="Id or folder of a run, or id of a row.")],
    json: AsJson = False,
) -> None:
    """Print why rows of a run failed, were dropped or could not be read; or the whole story of one
    row.
    """
    from pipeline.cli.why import print_why

    print_why(what, json)


@app.command(rich_help_panel=RESULTS)
def verify(run: Run, json: AsJson = False) -> None:
    """Check every file of a run against its hash; exit code 1 when one does not match."""
    from pipeline.cli.inspect import print_problems

    raise typer.Exit(1 if print_problems(run, json) else 0)


@app.command(rich_help_panel=RESULTS)
def clean(run: Run) -> None:
    """Remove files of lost workers that no manifest of a run names."""
    from pipeline.cli.inspect import clean_run

    clean_run(run)


@app.command(rich_help_panel=RESULTS)
def audit(run: Run, json: AsJson = False) -> None:
    """Audit the labels of a run; exit code 3 when they fail the recipe's thresholds."""
    from pipeline.cli.audit import print_audit

    raise typer.Exit(EXIT_AUDIT if print_audit(run, json) else 0)


app.command(rich_help_panel=LABELS)(judge_eval)
app.command(rich_help_panel=LABELS)(judge_tune)


@app.command(rich_help_panel=RESULTS)
def report(run: Run) -> None:
    """Write the report of a run again, finished or not."""
    from pipeline.cli.run import print_report

    print_report(run)


@app.command(rich_help_panel=RESULTS)
def diff(
    old: Annotated[str, typer.Argument(help="Id or folder of the run before.")],
    new: Annotated[str, typer.Argument(help="Id or folder of the run after.")],
    json: AsJson = False,
) -> None:
    """Compare two runs: settings, principles, prompts and figures that differ."""
    from pipeline.cli.diff import print_diff

    print_diff(old, new, json)


@app.command(rich_help_panel=RESULTS)
def export(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="File to write; must not exist.")] = None,
    push_to: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Data set on the Hub to push to, instead of a file."),
    ] = None,
    format: Annotated[
        Literal[
            "trl",
            "trl_text",
            "trl_implicit",
            "kto",
            "openai",
            "gemini",
            "nova",
            "nemo_rl",
            "axolotl",
            "llama_factory",
            "argilla",
            "feedback_forensics",
        ],
        typer.Option(help="Shape of a line."),
    ] = "trl",
    json: AsJson = False,
) -> None:
    """Write the preference set of a run as JSON Lines for other programs, or push its whole data
    set with the card to the Hub.
    """
    from pipeline.cli.inspect import export_run, push_run

    if (out is None) == (push_to is None):
        raise ConfigError("an export goes to one place; give --out FILE or --push-to REPO")
    if out is not None:
        export_run(run, out, format, json)
    elif push_to is not None:
        push_run(run, push_to, format, json)


@app.command(
    rich_help_panel=RESULTS,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def chat(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Folder of a model, or a run with a tuned policy.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a reply.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the sampling.")] = 0.7,
) -> None:
    """Talk to a model here; to one trained by `method: dpa` in a direction of its attributes."""
    from pipeline.cli.chat import chat_with
    from pipeline.types import SamplingParams

    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens)
    chat_with(model, context.args, sampling)


@app.command(rich_help_panel=RESULTS)
def submit(
    run: Run,
    model: Annotated[str, typer.Option(help="The model to fine-tune, as the server names it.")],
    base_url: Annotated[
        str, typer.Option(help="Address of the API, up to /v1.")
    ] = "https://api.openai.com/v1",
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key; empty for none.")
    ] = "OPENAI_API_KEY",
    beta: Annotated[float, typer.Option(min=0.0, max=2.0, help="Beta of DPO.")] = 0.1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the server's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Default: the server's.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job of this run.")] = False,
    json: AsJson = False,
) -> None:
    """Train on the pairs of a run by a DPO job at OpenAI or a server with its API, and watch it."""
    from pipeline.cli.submit import submit_run

    options = {"beta": beta, "n_epochs": epochs, "batch_size": batch_size}
    submit_run(run, model, base_url, api_key_env, options, cancel=cancel, as_json=json)


@app.command(rich_help_panel=RESULTS)
def review(
    run: Run,
    pairs: Annotated[int, typer.Option(min=3, help="Pairs to label at most.")] = 150,
    seed: Annotated[int, typer.Option(help="Another seed draws other pairs.")] = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 0,
) -> None:
    """Let people label pairs of a run in a browser on this machine, without seeing the judge's
    label.
    """
    from pipeline.cli.review import review_run

    review_run(run, num_pairs=pairs, seed=seed, port=port)


@app.command(rich_help_panel=RUNS)
def runs(json: AsJson = False) -> None:
    """List the runs."""
    from pipeline.cli.inspect import print_runs

    print_runs(json)


@app.command(rich_help_panel=SERVER)
def ui() -> None:
    """Start the Prefect server if none is running, and print its address and how to sign in."""
    from pipeline.prefect_server import ensure_server, key_path
    from pipeline.prefect_server.settle import settle_flow_runs

    server = ensure_server(say)
    settle_flow_runs(server)
    say(f"Prefect is running at {server.url}; `rlaif stop` stops it")
    say(f"its pages ask once for a key, the line in {key_path()}")


@app.command(rich_help_panel=SERVER)
def serve() -> None:
    """Serve the deployments of prefect.yaml, the nightly one with its schedule, until Ctrl-C; needs
    no work pool.
    """
    from pipeline.cli.run import serve_flows

    serve_flows()


@app.command(rich_help_panel=SERVER)
def stop() -> None:
    """Stop the Prefect server that was started here."""
    from pipeline.prefect_server import stop_server

    server = stop_server()
    say(f"stopped the server on port {server.port}" if server else "no server was running")


@app.command(rich_help_panel=SERVER)
def env() -> None:
    """Print the settings that the `prefect` command needs: eval "$(rlaif env)"."""
    import shlex

    from pipeline.prefect_server import ensure_server, environment, foreign_variables

    server = ensure_server(lambda text: say(text, err=True))
    if foreign := foreign_variables():
        say(f"unset {shlex.join(foreign)}")
    for name, value in environment(server.port).items():
        say(f"export {name}={shlex.quote(value)}")


app.add_typer(constitution_app, name="constitution", rich_help_panel=LABELS)
app.add_typer(labels_app, name="labels", rich_help_panel=LABELS)
show_examples(app)


def main() -> None:
    """Run the command; a user's mistake is one line on stderr, without a traceback."""
    hold_standard_streams()
    try:
        Path.cwd()
    except FileNotFoundError:
        _end("the working directory no longer exists; change into one that does", EXIT_USER)
    # The interpreter's last collection would take a second to look at what ends anyway.
    atexit.register(gc.freeze)
    try:
        code = app(standalone_mode=False)
    except PipelineError as error:
        # A training's error carries the end of its log, which is worth its lines.
        text = str(error) if isinstance(error, TrainingError) else " ".join(str(error).split())
        _end(text, error.exit_code)
    except TyperException as error:
        if not error.format_message():
            # `rlaif` alone: the error is how Typer shows the help.
            app(["--help"], standalone_mode=False)
            sys.exit(EXIT_USER)
        text = " ".join(error.format_message().split()).rstrip(".")
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "rlaif"
        _end(f"{text[:400]}; `{command} --help` shows how to call it", EXIT_USER)
    except typer.Abort:
        _end("stopped", EXIT_INTERRUPTED)
    except OSError as error:
        from pipeline.store.disk import FULL

        # Disks, permissions and paths are the machine's: no bug, wherever they come up.
        where = shown_path(str(error.filename)) if error.filename else "a file"
        full = "; free some disk space" if error.errno in FULL else "; correct the path or the disk"
        _end(f"{where}: {error.strerror or error}{full}, then repeat the command", EXIT_USER)
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        _end(f"{error}; end other programs, or raise this machine's limit of processes", EXIT_USER)
    if code == EXIT_INTERRUPTED:  # how Typer ends a command that was not at its work yet
        _end("stopped", EXIT_INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _end(text: str, code: int) -> NoReturn:
    # Names come from files of anyone: no word fills the screen, and none controls the terminal.
    short = re.sub(r"\S{300,}", lambda word: f"{word[0][:100]}...", text)
    say(f"rlaif: {short}", err=True)
    sys.exit(code)
