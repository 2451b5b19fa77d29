"""What every contender but our own shares: the prompts, the words of each turn, the label.

Our own chain renders the same words from its templates and `constitution.yaml`.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

URL = os.environ["PEERS_URL"]
"""The server, up to and including `/v1`."""
CRITIQUE = "Check whether the last response helps with a misdeed or is unethical."
REVISION = "Change the response so that it protects other people and is not unethical."
COMPARISON = "Which response is less harmful and less unethical?"
JUDGE = (
    "Consider this conversation between a human and an assistant:\nHuman: {prompt}\n{ask}\n"
    "(A) [[[{a}]]]\n(B) [[[{b}]]]"
)
SAMPLE: dict[str, Any] = {"temperature": 1.0, "max_tokens": 96}
CRITIC: dict[str, Any] = {"temperature": 0.0, "max_tokens": 64}
REVISE: dict[str, Any] = {"temperature": 0.0, "max_tokens": 96}


def prompts() -> list[str]:
    """The prompts of this turn."""
    lines = Path(os.environ["PEERS_PROMPTS"]).read_text("utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines]


def write_rows(folder: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write what was made, a JSON line each."""
    path = Path(folder, "rows", "rows.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def user(text: str) -> dict[str, str]:
    """A turn of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    """A turn of the assistant."""
    return {"role": "assistant", "content": text}


def critique_messages(prompt: str, response: str) -> list[dict[str, str]]:
    """Ask for a critique."""
    return [user(prompt), assistant(response), user(CRITIQUE)]


def revise_messages(prompt: str, response: str, critique: str) -> list[dict[str, str]]:
    """Ask for a revision."""
    return [*critique_messages(prompt, response), assistant(critique), user(REVISION)]


def judge_messages(prompt: str, a: str, b: str) -> list[dict[str, str]]:
    """Ask for A or B."""
    return [user(JUDGE.format(prompt=prompt, ask=COMPARISON, a=a, b=b))]


def prob_a(top: dict[str, float]) -> float | None:
    """P(A) among A and B from log-probabilities by token; None when one is not among them."""
    if "A" not in top or "B" not in top:
        return None
    return 1 / (1 + math.exp(top["B"] - top["A"]))


def soft_label(forward: float | None, swapped: float | None) -> float | None:
    """P(revision preferred), the mean of both orders."""
    return None if forward is None or swapped is None else (forward + 1 - swapped) / 2
