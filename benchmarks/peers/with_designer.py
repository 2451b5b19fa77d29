"""NVIDIA's data-designer: custom columns that ask through its models.

usage: with_designer.py FOLDER ROWS_AT_ONCE [resume]
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from data_designer.config.column_configs import CustomColumnConfig
from data_designer.config.config_builder import DataDesignerConfigBuilder
from data_designer.config.custom_column import custom_column_generator
from data_designer.config.models import ChatCompletionInferenceParams, ModelConfig, ModelProvider
from data_designer.config.run_config import ResumeMode, RunConfig
from data_designer.config.seed_source import LocalFileSeedSource
from data_designer.engine.models.utils import ChatMessage
from data_designer.interface.data_designer import DataDesigner
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

FOLDER, BUFFER = sys.argv[1], int(sys.argv[2])
RESUME = ResumeMode.ALWAYS if "resume" in sys.argv else ResumeMode.NEVER
Row = dict[str, Any]


async def ask(model: Any, messages: list[dict[str, str]], **arguments: Any) -> Any:
    """One reply."""
    chat = [ChatMessage(role=m["role"], content=m["content"]) for m in messages]
    return await model.acompletion(chat, **arguments)


@custom_column_generator(required_columns=["prompt"], model_aliases=["sampler"])
async def response(row: Row, generator_params: Any, models: Any) -> Row:
    """The first response."""
    row["response"] = (await ask(models["sampler"], [user(row["prompt"])])).message.content
    return row


@custom_column_generator(required_columns=["prompt", "response"], model_aliases=["critic"])
async def critique(row: Row, generator_params: Any, models: Any) -> Row:
    """Its critique."""
    messages = critique_messages(row["prompt"], row["response"])
    row["critique"] = (await ask(models["critic"], messages)).message.content
    return row


@custom_column_generator(
    required_columns=["prompt", "response", "critique"], model_aliases=["reviser"]
)
async def revision(row: Row, generator_params: Any, models: Any) -> Row:
    """Its revision."""
    messages = revise_messages(row["prompt"], row["response"], row["critique"])
    row["revision"] = (await ask(models["reviser"], messages)).message.content
    return row


@custom_column_generator(
    required_columns=["prompt", "response", "revision"], model_aliases=["judge"]
)
async def label(row: Row, generator_params: Any, models: Any) -> Row:
    """P(revision preferred) where the two texts differ."""
    row["label"] = None
    if row["revision"] != row["response"]:
        probs = []
        for pair in ((row["revision"], row["response"]), (row["response"], row["revision"])):
            extra = {"logprobs": True, "top_logprobs": 20}
            messages = judge_messages(row["prompt"], *pair)
            reply = (await ask(models["judge"], messages, extra_body=extra)).raw
            top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            probs.append(prob_a({each["token"]: each["logprob"] for each in top}))
        row["label"] = soft_label(*probs)
    return row


def model(alias: str, **arguments: Any) -> ModelConfig:
    """The server's model under a name, 64 requests at once."""
    parameters = ChatCompletionInferenceParams(max_parallel_requests=64, **arguments)
    return ModelConfig(
        alias=alias,
        model="pocket",
        provider="local",
        skip_health_check=True,
        inference_parameters=parameters,
    )


if __name__ == "__main__":
    providers = [ModelProvider(name="local", endpoint=URL, api_key="none")]
    designer = DataDesigner(artifact_path=Path(FOLDER), model_providers=providers)
    designer.set_run_config(RunConfig(buffer_size=BUFFER, otel_metrics_port=None))
    builder = DataDesignerConfigBuilder(
        model_configs=[
            model("sampler", **SAMPLE),
            model("critic", **CRITIC),
            model("reviser", **REVISE),
            model("judge", temperature=0.0, max_tokens=1),
        ]
    )
    builder.with_seed_dataset(LocalFileSeedSource(path=os.environ["PEERS_PROMPTS"]))
    for function in (response, critique, revision, label):
        builder.add_column(CustomColumnConfig(name=function.__name__, generator_function=function))
    results = designer.create(
        builder, num_records=len(prompts()), dataset_name="chain", resume=RESUME
    )
    table = results.load_dataset().to_json(orient="records", lines=True)
    write_rows(FOLDER, map(json.loads, table.splitlines()))
