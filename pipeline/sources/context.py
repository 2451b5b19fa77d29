"""What comes before a response: system message, history and prompt, from their columns.

In:  a record of a label file and its mapping (config.ContextColumns)
Out: the turns before the responses; with a response, the whole conversation
"""

from itertools import chain
from typing import Any

from pipeline.sources.config import ContextColumns
from pipeline.sources.lines import Line
from pipeline.sources.stored_text import STORED, UnusableRow, stored_value
from pipeline.types import Message, Messages, assistant, user

NOT_MATCHING = "prompt and responses have different numbers of turns"


def context_of(columns: ContextColumns, line: Line) -> Messages | None:
    """The turns before the responses; None where no column holds a prompt.

    Raises:
        UnusableRow: a column holds more than texts.
        DataError: a column is missing, or two of them contradict each other.
    """
    prompt = _prompt(columns, line)
    history = _history(columns.history, line)
    turns = None if prompt is None and not history else (*history, *(prompt or ()))
    told = line.optional(columns.system) is not None
    system = line.text(columns.system) if columns.system and told else ""
    if not system:
        return turns
    if turns and turns[0].role == "system":
        if turns[0].content != system:
            raise line.error(
                f"'{columns.system}' and the prompt have different system messages; map one"
            )
        return turns
    return (Message("system", system), *(turns or ()))


def whole(line: Line, key: str, context: Messages | None) -> Messages:
    """The conversation that ends with the response in a column.

    Args:
        context: the turns before it, where other columns hold them.

    Raises:
        UnusableRow: the response is more than texts, or no assistant turn is last.
        DataError: there is no prompt, or the prompt is not that of the conversation.
    """
    turns = line.messages(key, "assistant")
    if turns[-1].role != "assistant":
        raise UnusableRow(f"the conversation in '{key}' does not end with an assistant turn")
    spoken = [turn for turn in context or () if turn.role != "system"]
    if turns[0].role == "assistant":
        if not spoken:
            raise line.error(
                "there is no 'prompt', and the responses are not conversations; name the column "
                "of the prompt"
            )
        if {turn.role for turn in turns} == {"assistant"} and len(turns) > 1:
            return _interleaved(context or (), turns)
        return (*(context or ()), *turns)
    before = turns[:-1]
    own = [turn for turn in before if turn.role != "system"]
    prompts = [turn.content for turn in own if turn.role == "user"]
    contents = [turn.content for turn in spoken]
    one_of = len(contents) == 1 and contents[0] in (*prompts[:1], *prompts[-1:])
    if spoken and spoken != own and not one_of:
        raise line.error(
            f"the prompt {contents[-1]!r:.60} is not that of the conversation in '{key}' "
            f"({prompts[-1] if prompts else ''!r:.60}); map the right column, or prompt: null"
        )
    systems = [turn for turn in context or () if turn.role == "system"]
    own_systems = [turn for turn in before if turn.role == "system"]
    if systems and own_systems and systems != own_systems:
        raise line.error(f"the system messages of the prompt and of '{key}' differ; map one")
    return (*(own_systems or systems), *own, turns[-1])


def _interleaved(context: Messages, replies: Messages) -> Messages:
    """Lists of prompts and of replies, turn by turn."""
    systems = [turn for turn in context if turn.role == "system"]
    prompts = [turn for turn in context if turn.role == "user"]
    if len(prompts) != len(replies) or len(systems) + len(prompts) != len(context):
        raise UnusableRow(NOT_MATCHING)
    return (*systems, *chain.from_iterable(zip(prompts, replies, strict=True)))


def _prompt(columns: ContextColumns, line: Line) -> Messages | None:
    """The turns of the prompt columns; None when none of them is there."""
    names = columns.prompts
    if len(names) == 1:
        # The default name may be absent: the responses may be whole conversations.
        absent = names == ("prompt",) and "prompt" not in line.values
        return None if absent else line.messages(names[0])
    if not names:
        return None
    texts = [line.text(name) for name in names if line.value(name) is not None]
    if any(stored_value(text) is not text for text in texts):
        raise UnusableRow(STORED)
    return (user("\n".join(text for text in texts if text)),)


def _history(key: str | None, line: Line) -> Messages:
    value: Any = line.optional(key)
    if isinstance(value, str):
        value = stored_value(value)
    if value in (None, []):
        return ()
    if isinstance(value, list) and all(isinstance(pair, list) for pair in value):
        if any(len(pair) != 2 or not all(isinstance(t, str) and t for t in pair) for pair in value):
            raise UnusableRow("a turn of the history is not a pair of texts")
        return tuple(chain.from_iterable((user(a.strip()), assistant(b.strip())) for a, b in value))
    return line.messages(str(key))
