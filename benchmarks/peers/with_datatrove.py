"""datatrove: one rollout a prompt against a remote endpoint.

usage: with_datatrove.py FOLDER

A rollout is given text and token counts, not log-probabilities: its verdicts are letters.
"""

import sys
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter
from layout import (
    CRITIC,
    REVISE,
    SAMPLE,
    URL,
    critique_messages,
    judge_messages,
    prompts,
    revise_messages,
    user,
)

FOLDER = sys.argv[1]


def documents(data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    """The prompts."""
    for number, prompt in enumerate(prompts()):
        yield Document(text=prompt, id=str(number))


async def chain(document: Document, generate: Any) -> dict[str, Any]:
    """All of one prompt."""

    async def ask(messages: list[dict[str, str]], **arguments: Any) -> str:
        return (await generate({"messages": messages, **arguments})).text

    prompt = document.text
    response = await ask([user(prompt)], **SAMPLE)
    critique = await ask(critique_messages(prompt, response), **CRITIC)
    revision = await ask(revise_messages(prompt, response, critique), **REVISE)
    row: dict[str, Any] = {"response": response, "critique": critique, "revision": revision}
    if revision != response:
        label: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, "logprobs": True}
        orders = (revision, response), (response, revision)
        row["verdict"] = [await ask(judge_messages(prompt, *pair), **label) for pair in orders]
    return row


if __name__ == "__main__":
    runner = InferenceRunner(
        rollout_fn=chain,
        config=InferenceConfig(
            server_type="endpoint",
            model_name_or_path="pocket",
            endpoint_url=URL.removesuffix("/v1"),
            max_concurrent_generations=64,
            max_concurrent_documents=256,
            metric_interval=5,
        ),
        output_writer=JsonlWriter(
            f"{FOLDER}/rows", output_filename="${rank}_${chunk_index}.jsonl", compression=None
        ),
        checkpoints_local_dir=f"{FOLDER}/checkpoints",
        records_per_chunk=64,
    )
    LocalPipelineExecutor(pipeline=[documents, runner], tasks=1, logging_dir=f"{FOLDER}/logs").run()
