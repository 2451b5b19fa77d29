"""The examples at the end of each command's `--help`, in one table."""

import typer

EXAMPLES = {
    "init": ["rlaif init mine --like support_tone"],
    "run": [
        "rlaif run flows/configs/demo.yaml",
        "rlaif run flows/configs/demo.yaml --set seed=1 --set preference.train.beta=0.05",
        "rlaif run flows/configs/smoke.yaml --run-id first --no-prefect",
    ],
    "plan": ["rlaif plan flows/configs/demo.yaml --prompts 16"],
    "sweep": ["rlaif sweep flows/configs/demo.yaml --over beta=0.05,0.1 --over method=dpo,ipo"],
    "resume": ["rlaif resume RUN", "rlaif resume RUN --set budget.tokens=2000000"],
    "nightly": ["rlaif nightly flows/configs/demo.yaml"],
    "check": [
        "rlaif check flows/configs/demo.yaml constitutions/house_style.yaml prompts/judge.jinja",
        "rlaif check recipe.yaml --offline --set seed=1",
    ],
    "trace": ["rlaif trace ROW", "rlaif trace ROW --run RUN --json"],
    "why": ["rlaif why RUN", "rlaif why ROW"],
    "verify": ["rlaif verify RUN"],
    "clean": ["rlaif clean RUN"],
    "audit": ["rlaif audit RUN", "rlaif audit RUN --json"],
    "judge-eval": [
        "rlaif judge-eval labels.jsonl --recipe recipe.yaml --calibrate calibration.json",
        "rlaif judge-eval --recipe recipe.yaml --sources sources.yaml --limit 200",
    ],
    "judge-tune": ["rlaif judge-tune recipe.yaml labels.jsonl"],
    "report": ["rlaif report RUN"],
    "diff": ["rlaif diff RUN OTHER"],
    "export": [
        "rlaif export RUN --out pairs.jsonl --format openai",
        "rlaif export RUN --push-to polite-pairs",
    ],
    "chat": ["rlaif chat RUN --helpful 0.8 --harmless 0.2"],
    "submit": [
        "rlaif submit RUN --model gpt-4.1-mini-2025-04-14 --beta 0.2",
        "rlaif submit RUN --model gpt-4.1-mini-2025-04-14 --cancel",
    ],
    "review": ["rlaif review RUN --pairs 50"],
    "runs": ["rlaif runs --json"],
    "ui": ["rlaif ui"],
    "serve": ["rlaif serve"],
    "stop": ["rlaif stop"],
    "env": ['eval "$(rlaif env)"'],
    "constitution lint": ["rlaif constitution lint constitutions/house_style.yaml"],
    "constitution import": [
        "rlaif constitution import principles.json --name kind --out kind.yaml",
        "rlaif constitution import charter.md --name charter --out charter.yaml",
    ],
    "constitution diff": ["rlaif constitution diff old.yaml new.yaml"],
    "constitution impact": ["rlaif constitution impact RUN new.yaml"],
    "constitution discover": [
        "rlaif constitution discover labels.jsonl --recipe recipe.yaml --out found.yaml",
        "rlaif constitution discover --run RUN --recipe recipe.yaml --out found.yaml",
    ],
    "labels import": ["rlaif labels import sources.yaml --out labels.parquet"],
    "labels agreement": ["rlaif labels agreement sources.yaml --between people judge"],
}
"""Command lines by the name of the command after `rlaif`."""


def show_examples(app: typer.Typer, group: str = "") -> None:
    """Put the examples at the end of the help of every command of an app, and of its groups."""
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        command.epilog = "\n\n".join(["Examples:", *EXAMPLES.get(group + name, [])])
    for inner in app.registered_groups:
        assert inner.typer_instance is not None
        show_examples(inner.typer_instance, f"{inner.name} ")
