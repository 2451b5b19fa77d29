"""vLLM alone, as the ceiling: all requests of a stage in one call, a barrier after each stage.

usage: alone.py FOLDER
"""

import sys
from typing import Any

import httpx
from layout import (
    CRITIC,
    REVISE,
    SAMPLE,
    URL,
    critique_messages,
    judge_messages,
    prob_a,
    prompts,
    revise_messages,
    soft_label,
    user,
    write_rows,
)


def render(messages: list[dict[str, str]]) -> str:
    """The chat template of the pocket model."""
    return "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages) + "<|assistant|>"


def complete(conversations: list[list[dict[str, str]]], **arguments: Any) -> list[Any]:
    """All replies, in order."""
    texts = [render(conversation) for conversation in conversations]
    body = {"model": "pocket", "prompt": texts, "add_special_tokens": False, **arguments}
    reply = httpx.post(f"{URL}/completions", json=body, timeout=600).raise_for_status().json()
    return sorted(reply["choices"], key=lambda choice: choice["index"])


asks = prompts()
responses = [c["text"] for c in complete([[user(p)] for p in asks], **SAMPLE)]
pairs = list(zip(asks, responses, strict=True))
critiques = [c["text"] for c in complete([critique_messages(*pair) for pair in pairs], **CRITIC)]
triples = list(zip(asks, responses, critiques, strict=True))
revisions = [c["text"] for c in complete([revise_messages(*each) for each in triples], **REVISE)]
rows: list[dict[str, Any]] = [
    {"prompt": prompt, "response": response, "critique": critique, "revision": revision}
    for (prompt, response, critique), revision in zip(triples, revisions, strict=True)
]
changed = [row for row in rows if row["revision"] != row["response"]]
orders = [
    judge_messages(row["prompt"], *pair)
    for row in changed
    for pair in ((row["revision"], row["response"]), (row["response"], row["revision"]))
]
judged = complete(orders, temperature=0, max_tokens=1, logprobs=20) if orders else []
probs = [prob_a(choice["logprobs"]["top_logprobs"][0]) for choice in judged]
for row, forward, swapped in zip(changed, probs[::2], probs[1::2], strict=True):
    row["soft_label"] = soft_label(forward, swapped)
write_rows(sys.argv[1], rows)
