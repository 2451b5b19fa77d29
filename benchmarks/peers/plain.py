"""A plain script: one coroutine a prompt, a semaphore, a bar.

usage: plain.py FOLDER [append]      with `append`, finished chains are written at once and skipped
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

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
from openai import AsyncOpenAI
from tqdm.asyncio import tqdm_asyncio

path, appends = Path(sys.argv[1], "rows", "rows.jsonl"), "append" in sys.argv
gate = asyncio.Semaphore(64)
client = AsyncOpenAI(base_url=URL, api_key="none")


async def ask(messages: list[dict[str, str]], **arguments: Any) -> Any:
    """One reply."""
    async with gate:
        reply = await client.chat.completions.create(model="pocket", messages=messages, **arguments)
    return reply.choices[0]


async def judge(prompt: str, a: str, b: str) -> float | None:
    """P(A)."""
    messages = judge_messages(prompt, a, b)
    choice = await ask(messages, temperature=0, max_tokens=1, logprobs=True, top_logprobs=20)
    return prob_a({top.token: top.logprob for top in choice.logprobs.content[0].top_logprobs})


async def chain(prompt: str) -> dict[str, Any]:
    """All of one prompt."""
    response = (await ask([user(prompt)], **SAMPLE)).message.content
    critique = (await ask(critique_messages(prompt, response), **CRITIC)).message.content
    revision = (await ask(revise_messages(prompt, response, critique), **REVISE)).message.content
    row = {"prompt": prompt, "response": response, "critique": critique, "revision": revision}
    if revision != response:
        orders = judge(prompt, revision, response), judge(prompt, response, revision)
        row["soft_label"] = soft_label(*await asyncio.gather(*orders))
    if appends:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return row


async def main() -> None:
    """All prompts that are not there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    done = {json.loads(line)["prompt"] for line in lines}
    rows = await tqdm_asyncio.gather(*(chain(p) for p in prompts() if p not in done))
    if not appends:
        write_rows(sys.argv[1], rows)


asyncio.run(main())
