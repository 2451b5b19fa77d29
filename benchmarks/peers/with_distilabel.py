"""distilabel: chat tasks chained with steps of our own.

usage: with_distilabel.py FOLDER BATCH [cache]
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import KeepColumns, LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import ChatGeneration
from layout import (
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

FOLDER, BATCH, USE_CACHE = sys.argv[1], int(sys.argv[2]), "cache" in sys.argv


@step(inputs=["prompt", "generation"], outputs=["response", "messages"])
def to_critique(inputs: StepInput) -> Iterator[Any]:
    """Ask for critiques."""
    for row in inputs:
        row["response"] = row["generation"]
        row["messages"] = critique_messages(row["prompt"], row["response"])
    yield inputs


@step(inputs=["prompt", "response", "generation"], outputs=["critique", "messages"])
def to_revision(inputs: StepInput) -> Iterator[Any]:
    """Ask for revisions."""
    for row in inputs:
        row["critique"] = row["generation"]
        row["messages"] = revise_messages(row["prompt"], row["response"], row["critique"])
    yield inputs


@step(
    inputs=["prompt", "response", "generation"],
    outputs=["revision", "messages", "swapped_messages"],
)
def to_judge(inputs: StepInput) -> Iterator[Any]:
    """Ask for labels where the two texts differ."""
    rows = []
    for row in inputs:
        if row["generation"] is None or row["generation"] == row["response"]:
            continue
        row["revision"] = row["generation"]
        row["messages"] = judge_messages(row["prompt"], row["revision"], row["response"])
        row["swapped_messages"] = judge_messages(row["prompt"], row["response"], row["revision"])
        rows.append(row)
    yield rows


class Judge(ChatGeneration):
    """A task drops the log-probabilities of its model, so the model is called here."""

    @property
    def inputs(self) -> list[str]:
        """Both orders."""
        return ["messages", "swapped_messages"]

    @property
    def outputs(self) -> list[str]:
        """The label."""
        return ["soft_label", "model_name"]

    def process(self, inputs: StepInput) -> Iterator[Any]:
        """Both orders in one batch."""
        orders = [row[name] for row in inputs for name in ("messages", "swapped_messages")]
        outputs = self.llm.generate_outputs(
            inputs=orders, num_generations=1, **self.llm.get_generation_kwargs()
        )
        probs = [
            prob_a({top["token"]: top["logprob"] for top in output["logprobs"][0][0]})
            if output["logprobs"]
            else None
            for output in outputs
        ]
        for row, forward, swapped in zip(inputs, probs[::2], probs[1::2], strict=True):
            label = soft_label(forward, swapped)
            row.update(soft_label=label, model_name=self.llm.model_name)
        yield inputs


def llm(**arguments: Any) -> OpenAILLM:
    """The server's model."""
    return OpenAILLM(model="pocket", base_url=URL, api_key="none", generation_kwargs=arguments)


one_token = {"temperature": 0.0, "max_new_tokens": 1, "logprobs": True, "top_logprobs": 20}
with Pipeline(name="chain", cache_dir=f"{FOLDER}/cache") as pipeline:
    size: dict[str, Any] = {"input_batch_size": BATCH}
    load = LoadDataFromDicts(
        data=[{"prompt": p, "messages": [user(p)]} for p in prompts()], batch_size=BATCH
    )
    sampler, critic, reviser = (
        llm(temperature=temperature, max_new_tokens=most)
        for temperature, most in ((1.0, 96), (0.0, 64), (0.0, 96))
    )
    sample = ChatGeneration(name="sample", llm=sampler, **size)
    critique = ChatGeneration(name="critique", llm=critic, **size)
    revise = ChatGeneration(name="revise", llm=reviser, **size)
    judge = Judge(name="judge", llm=llm(**one_token), **size)
    keep = KeepColumns(columns=["prompt", "response", "critique", "generation"], **size)
    after_sample, after_critique, after_revision = (
        each(**size) for each in (to_critique, to_revision, to_judge)
    )
    load >> sample >> after_sample >> critique >> after_critique >> revise
    revise >> [keep, after_revision]
    after_revision >> judge

if __name__ == "__main__":
    dataset = pipeline.run(use_cache=USE_CACHE)
    dataset.save_to_disk(str(Path(FOLDER, "dataset")))
    revised = dataset["keep_columns_0"]["train"]
    write_rows(FOLDER, ({**row, "revision": row["generation"]} for row in revised))
