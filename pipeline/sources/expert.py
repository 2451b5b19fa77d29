"""Answers that experts wrote, each paired with what a model said to the same prompt.

In:  JSON Lines or CSV with `prompt` (or `messages`) and `answer`; model responses either as
     `response` on the same line or in a second file with `prompt` (or `messages`) and `response`
Out: LabeledRow: chosen is the expert's answer, rejected the model's response

The pair claims that the expert's text is preferred, although no one compared the two: give such a
source a `label_accuracy` below 1 when a good model may well have answered better.
"""

import contextlib
from collections import defaultdict
from pathlib import Path

from pipeline.ids import prompt_id, uniform
from pipeline.sources.config import ExpertSource
from pipeline.sources.conversations import conversation_fault
from pipeline.sources.lines import read_lines
from pipeline.sources.rows import Imported, LabeledRow, imported, labeled_row
from pipeline.sources.stored_text import UnusableRow

NO_RESPONSE = "no model response to this prompt"


def import_expert(source: ExpertSource, seed: int = 0) -> Imported:
    """All answers of a file. Raises DataError with file and line.

    Args:
        seed: draws the model responses where there are more than `per_prompt`.
    """
    by_prompt = _responses(source.responses) if source.responses else None
    rows: list[LabeledRow] = []
    notes: list[str] = []
    lines = list(read_lines(source.path))
    for line in lines:
        annotator, tags = line.word("author"), line.tags("tags")
        try:
            messages, answer = line.conversation(), line.reply("answer")
            responses = [line.reply("response")] if by_prompt is None else []
        except UnusableRow as fault:
            rows.append(labeled_row(source, line.number, (), "", "", reason=str(fault)))
            continue
        if by_prompt is not None:
            responses = _drawn(by_prompt[prompt_id(messages)], source.per_prompt, seed, line.number)
        if len(responses) > 1:
            notes.append("paired with several model responses")
        reason = conversation_fault(messages) or ("" if responses else NO_RESPONSE)
        rows += [
            labeled_row(
                source,
                line.number,
                messages,
                answer,
                response,
                reason=reason,
                annotator=annotator,
                tags=tags,
            )
            for response in responses or [""]
        ]
    return imported(source, rows, notes, lines)


def _responses(path: Path) -> dict[str, list[str]]:
    by_prompt: dict[str, list[str]] = defaultdict(list)
    for line in read_lines(path):
        # A response that is more than a text is none to pair an answer with.
        with contextlib.suppress(UnusableRow):
            by_prompt[prompt_id(line.conversation())].append(line.reply("response"))
    return by_prompt


def _drawn(texts: list[str], limit: int, seed: int, number: int) -> list[str]:
    # Sorted by a seeded number: the draw does not depend on the order in the file.
    return sorted(set(texts), key=lambda text: uniform("expert", seed, number, text))[:limit]
