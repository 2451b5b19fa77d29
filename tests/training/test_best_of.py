"""Which reply rejection sampling learns from."""

import json
from collections.abc import Callable
from typing import Any

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import DpaConfig, RftConfig
from pipeline.training.worker.best_of import best_replies
from tests.training.builders import pair_row, sft_row


def pair(row_id: str, chosen: str, rejected: str, soft_label: float, prompt: int = 0) -> Any:
    return pair_row(prompt, row_id=row_id, chosen=chosen, rejected=rejected, soft_label=soft_label)


def test_the_best_reply_is_the_one_preferred_on_average() -> None:
    """A: (.9 + .2) / 2 = .55; B: (.8 + .6) / 2 = .7; C: (.1 + .4) / 2 = .25."""
    rows = [pair("1", "A", "C", 0.9), pair("2", "B", "A", 0.8), pair("3", "B", "C", 0.6)]
    (best,) = best_replies(rows)
    assert best == {"row_id": "2", "messages": rows[0]["messages"], "completion": "B"}


def test_each_conversation_has_its_own_best() -> None:
    rows = [pair("1", "A", "B", 0.7), pair("2", "B", "A", 0.7, prompt=1)]
    assert [row["completion"] for row in best_replies(rows)] == ["A", "B"]
    # A reply that was never chosen is no best one, though its mean is as high.
    assert best_replies([pair("1", "A", "B", 0.5)])[0]["completion"] == "A"


def test_a_directed_model_knows_its_attributes(train: Callable[..., Any]) -> None:
    config = DpaConfig(
        attributes=("helpful", "harmless"), max_steps=1, alarms=AlarmConfig(probe_prompts=0)
    )
    said = {"role": "system", "content": "97 * helpful + 24 * harmless"}
    rows = [sft_row(i) for i in range(4)]
    result = train(config, [row | {"messages": [said, *row["messages"]]} for row in rows])
    stored = json.loads((result.model_dir / "directions.json").read_text())
    assert stored == {"attributes": ["helpful", "harmless"]} and result.rows.used == 4


def test_training_learns_the_best_and_counts_the_rest(train: Callable[..., Any]) -> None:
    config = RftConfig(
        learning_rate=3e-3, warmup_share=0.0, max_steps=2, alarms=AlarmConfig(probe_prompts=0)
    )
    rows = [pair_row(i) for i in range(8)] + [
        pair(f"more-{i}", "B" * (3 + i % 2), "C", 0.6, prompt=i) for i in range(4)
    ]
    result = train(config, rows)
    assert (result.rows.read, result.rows.beaten, result.rows.used) == (12, 4, 8)
    assert result.method == "rft" and (result.model_dir / "model.safetensors").is_file()
