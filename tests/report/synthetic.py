"""A small finished run with every part that a report can show, and pieces to make others."""

import json
from pathlib import Path
from typing import Any

from pipeline.config import load_config
from pipeline.evaluation import collect_metrics
from pipeline.store import RunDir, write_json
from tests.evaluation.builders import (
    WordOracle,
    critique,
    judgment,
    make_run,
    pair,
    prompt,
    response,
    revision,
)
from tests.run.builders import write_rows

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "{{ 7 * 7 }} {% raw %} {# no #}",
    "\"double\" 'single' `back` <img src=x onerror=alert(1)>",
    "</textarea></title></style><!-- ]]> & &amp;",
    "\u2028\u2029\u202e עברית 日本語 \U0001f9ea e\u0301 \x07",
    "word " * 4000,
)


def add_preference(run: RunDir, texts: dict[str, str], question: str = "do evil") -> None:
    """One prompt, its samples, three labels and their pairs: kept, tie, unparsed."""
    prompts = write_rows(run, "prompts", [prompt("p", question)])
    names = list(texts)
    samples = write_rows(
        run,
        "preference/sample",
        [response(name, "p", text) for name, text in texts.items()],
        prompt_tokens=100,
        cached_tokens=40,
        generated_tokens=12,
        seconds=1.5,
    )
    labels = [
        judgment("j1", "p", names[0], names[1]),
        judgment("j2", "p", names[1], names[2], "help", forward=0.9, swapped=0.9),
        judgment("j3", "p", names[0], names[2], "tone", status="unparsed", reason="no option"),
    ]
    judge = write_rows(run, "preference/judge", labels, inputs=[prompts, samples])
    reasons = ("", "tie", "judgment unparsed")
    pairs = [pair(f"pair-{j.row_id}", j, texts, r) for j, r in zip(labels, reasons, strict=True)]
    write_rows(run, "preference/pair", pairs, inputs=[prompts, samples, judge])


def add_revisions(run: RunDir, initial: str, criticism: str, revised: str) -> None:
    """One chain of one round."""
    first = response("start", "p", initial)
    source = critique("said", "p", "start", criticism, "harm")
    write_rows(run, "supervised/sample", [first])
    write_rows(run, "supervised/critique-1", [source])
    write_rows(run, "supervised/revise-1", [revision("revised", source, revised)])


def add_evaluation(run: RunDir, initial: list[str], tuned: list[str], forward: float = 0.9) -> None:
    """Both policies on held-out prompts, half of them misdeeds, judged against each other."""
    questions = [f"do evil {i}" if i % 2 else f"boil {i}" for i in range(len(initial))]
    write_rows(run, "heldout", [prompt(f"h{i}", text) for i, text in enumerate(questions)])
    for name, replies in (("initial", initial), ("tuned", tuned)):
        rows = [response(f"{name}{i}", f"h{i}", text) for i, text in enumerate(replies)]
        write_rows(run, f"evaluation/sample-{name}", rows)
    write_rows(
        run,
        "evaluation/judge-tuned-vs-initial",
        [
            judgment(
                f"e{i}",
                f"h{i}",
                f"tuned{i}",
                f"initial{i}",
                forward=forward,
                swapped=1 - forward,
                comparison="evaluation",
            )
            for i in range(len(initial))
        ],
    )


def add_training(run: RunDir, name: str, steps: int = 12, **result: Any) -> None:
    """Lines of metrics as the worker writes them."""
    folder = run.training(name)
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, steps + 1):
        line: dict[str, Any] = {"step": step, "loss": 1.0 / step}
        if name == "preference":
            line |= {"reward_margin": 0.1 * step, "logp_chosen": -9.0, "logp_rejected": -9.0 - step}
        lines.append(json.dumps(line))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    write_json(
        folder / "result.json",
        {
            "method": "dpo",
            "job_hash": "job",
            "model_dir": str(folder / "model"),
            "num_steps": steps,
            "train_s": 10.0,
            "total_s": 12.0,
            "final_loss": 0.1,
            "rows": {"read": 2, "used": 2},
            "device": "cpu",
            "dataset_sha256": "data",
            "model_hash": "before",
            "trained_hash": "after",
            **result,
        },
    )


def finished_run(folder: Path, *, oracle: bool = True) -> RunDir:
    """A run that got better: 20 held-out prompts, tuned replies all good."""
    run = make_run(folder, status="finished", constitution={"name": "small", "hash": "ab12"})
    add_preference(run, {"a": "help", "b": "harm", "c": "fine"})
    add_revisions(run, "harm", "it is harmful", "help")
    add_evaluation(run, ["harm"] * 10 + ["no"] * 10, ["help"] * 20)
    add_training(run, "sft")
    add_training(run, "preference")
    write_metrics(run, oracle=oracle)
    return run


def write_metrics(run: RunDir, *, oracle: bool = True) -> None:
    """metrics.json as the end of a run writes it."""
    metrics = collect_metrics(run, load_config(run.recipe), WordOracle() if oracle else None)
    write_json(run.metrics, metrics.model_dump(mode="json"))
