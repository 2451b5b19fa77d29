"""Responses with a score or a rank each: every two of one prompt that differ are a pair.

In:  a label file with several responses in a record (ranked completions), or one in each record
     (HelpSteer), and a declared column mapping (config.RankedColumns)
Out: LabeledRow per two responses to a prompt; equal scores are ties and are dropped

A response that occurs with different scores says nothing about its rank and is left out.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations

from pipeline.ids import prompt_id
from pipeline.sources.config import RankedSource
from pipeline.sources.context import context_of, whole
from pipeline.sources.conversations import conversation_fault
from pipeline.sources.lines import Line, read_lines
from pipeline.sources.pairs import EQUAL_SCORES, number_of
from pipeline.sources.rows import Imported, LabeledRow, imported, labeled_row
from pipeline.sources.stored_text import UnusableRow, json_value, stored_value
from pipeline.types import Messages

ALONE = "there is no other response to this prompt"
SCORED_TWICE = "one response has different scores"


@dataclass
class _Prompt:
    messages: Messages
    scores: dict[str, set[float]] = field(default_factory=lambda: defaultdict(set))
    """Higher is better."""
    lines: dict[str, int] = field(default_factory=dict)
    """Where a response occurs first."""


def import_ranked(source: RankedSource, seed: int = 0) -> Imported:
    """All responses of a file, in pairs. Raises DataError with file and line."""
    lines = list(read_lines(source.path))
    prompts: dict[str, _Prompt] = {}
    rows: list[LabeledRow] = []
    for line in lines:
        try:
            line.check_context()
            responses = _responses(source, line)
        except UnusableRow as fault:
            rows.append(labeled_row(source, line.number, (), "", "", reason=str(fault)))
            continue
        for values in responses:
            try:
                values.check_context()
                _add(source, values, prompts)
            except UnusableRow as fault:
                # One that cannot be used is no reason to lose the others of its record.
                rows.append(labeled_row(source, line.number, (), "", "", reason=str(fault)))
    for prompt in prompts.values():
        rows += _pairs(source, prompt)
    return imported(source, rows, lines=lines)


def _responses(source: RankedSource, line: Line) -> list[Line]:
    """One record for each response: the columns of the line, and the values of the response."""
    columns = source.columns
    order = str(columns.score or columns.rank)
    if columns.responses is None:
        return [line]
    found = line.value(columns.responses)
    entries = stored_value(found) if isinstance(found, str) else found
    if not isinstance(entries, list) or not entries:
        raise UnusableRow("there is no list of responses")
    if not all(isinstance(entry, dict) for entry in entries):
        numbers = line.value(order)
        numbers = json_value(numbers) if isinstance(numbers, str) else numbers
        if not isinstance(numbers, list) or len(numbers) != len(entries):
            raise UnusableRow("responses and scores have different numbers")
        entries = [
            {columns.response: entry, order: number}
            for entry, number in zip(entries, numbers, strict=True)
        ]
    return [Line(line.path, line.number, {**line.values, **e}, line.read) for e in entries]


def _add(source: RankedSource, line: Line, prompts: dict[str, _Prompt]) -> None:
    columns = source.columns
    key = str(columns.score or columns.rank)
    score = number_of(line.value(key), key, line)
    if score is None:
        raise UnusableRow("a score is missing")
    turns = whole(line, columns.response, context_of(columns, line))
    text = turns[-1].content
    prompt = prompts.setdefault(prompt_id(turns[:-1]), _Prompt(turns[:-1]))
    prompt.scores[text].add(score if columns.score else -score)
    prompt.lines.setdefault(text, line.number)


def _pairs(source: RankedSource, prompt: _Prompt) -> list[LabeledRow]:
    fault = conversation_fault(prompt.messages)
    clear = {text: scores.copy().pop() for text, scores in prompt.scores.items() if len(scores) < 2}
    rows = [
        labeled_row(source, prompt.lines[text], prompt.messages, text, "", reason=SCORED_TWICE)
        for text in prompt.scores.keys() - clear.keys()
    ]
    if len(prompt.scores) == 1:
        (text,) = prompt.scores
        line = prompt.lines[text]
        return [labeled_row(source, line, prompt.messages, text, "", reason=fault or ALONE)]
    for one, other in combinations(clear, 2):
        chosen, rejected = (one, other) if clear[one] >= clear[other] else (other, one)
        reason = fault or (EQUAL_SCORES if clear[one] == clear[other] else "")
        line = max(prompt.lines[one], prompt.lines[other])
        rows.append(labeled_row(source, line, prompt.messages, chosen, rejected, reason=reason))
    return rows
