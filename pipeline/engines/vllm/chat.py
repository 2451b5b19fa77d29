"""Messages to token ids: the chat template, the start of a reply, the options of a verdict.

In:  messages, and for scores the option strings or the last message unchanged
Out: token ids, exactly as the model was trained to see them, each special token once

The template is rendered once for a request and token ids are sent, so that no server adds a
second start token. Options must tokenize the same way alone and after the prompt; what would
make a score wrong without a sign raises instead (methods: first-token scoring of ' (A)', ' (B)').
"""

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.literal import MARK, encode_marked, mark_spelled, spelled_tokens
from pipeline.engines.options import TokenIds, check_distinct, continuation, rewritten
from pipeline.engines.reply import is_thought_mark
from pipeline.errors import ConfigError
from pipeline.types import Message, Messages

_SENTINEL = "\u2039content\u203a"
_LONGEST_TAIL = 256
SEGMENTS = 4096
"""Turns whose token ids are kept."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text and as token ids."""

    text: str
    token_ids: list[int]


class ChatRenderer:
    """Renders and tokenizes for one model.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        template: Jinja text that replaces the tokenizer's own template.
        template_args: extra variables of the template.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None = None,
        template_args: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._spelled = spelled_tokens(tokenizer)
        self._template, self._args = template, template_args or {}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        # The fast tokenizer underneath: same ids, a tenth of a millisecond less for each request.
        self._backend = backend
        self._special_texts = {
            index: token.content
            for index, token in tokenizer.added_tokens_decoder.items()
            if not (token.lstrip or token.rstrip)
        }
        special = {
            i: str(token.content)
            for i, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        self._special_ids = frozenset(special)
        self.thought_marks = frozenset(i for i in special if is_thought_mark(special[i]))
        """Special tokens that begin or end a thought; a decoder would drop them."""
        self._tails: dict[tuple[str, tuple[str, ...]], tuple[TokenIds, ...]] = {}
        # The turns of a conversation come again with each stage; they are tokenized once.
        self._segment_ids = functools.lru_cache(SEGMENTS)(self._encode_whole)
        self._borders = self._find_borders()

    def prompt(self, messages: Messages, reply_prefix: str = "") -> Rendered:
        """The conversation up to the point where the assistant's reply (after its prefix) goes
        on.
        """
        text = self._render(messages, reply_follows=True) + reply_prefix
        return Rendered(text, self.encode(text))

    def conversation(self, messages: Messages) -> Rendered:
        """The conversation with its last message whole, as a reward model reads it."""
        text = self._render(messages, reply_follows=False)
        return Rendered(text, self.encode(text))

    def last_reply(self, messages: Messages) -> tuple[Rendered, int]:
        """The conversation with its last message's content, and how many last tokens are content.

        Raises:
            ConfigError: template or tokenizer does not keep the content apart from what is before.
        """
        *before, last = messages
        marked = self._render((*before, Message(last.role, _SENTINEL)), reply_follows=False)
        head = marked[: marked.index(_SENTINEL)] if _SENTINEL in marked else None
        text = self._render(messages, reply_follows=False)
        marked_content = mark_spelled(last.content, self._spelled)
        # Some templates strip the content; the model was trained on the stripped form.
        content = next(
            (
                form
                for form in (marked_content, marked_content.strip())
                if head is not None and text.startswith(head + form)
            ),
            None,
        )
        if content is None or head is None:
            raise rewritten(last.role)
        rendered = Rendered(head + content, self.encode(head + content))
        head_ids = self.encode(head)
        if rendered.token_ids[: len(head_ids)] != head_ids:
            raise ConfigError(
                f"the first token of a {last.role} message melts with the template's text before "
                "it, so it cannot be scored alone; end the template's header with a special token "
                "or a line break"
            )
        return rendered, len(rendered.token_ids) - len(head_ids)

    def option_ids(self, prompt: Rendered, options: Sequence[str]) -> tuple[TokenIds, ...]:
        """Token ids of each option as the continuation of this prompt.

        Raises:
            ConfigError: an option is empty, changes the tokens before it, or two options cannot
                be told apart.
        """
        tail = self._tail(prompt)
        key = (prompt.text if tail is None else tail, tuple(options))
        if key in self._tails:
            return self._tails[key]
        before = prompt.token_ids if tail is None else self.encode(tail)
        ids = tuple(
            continuation(option, before, self.encode(key[0] + option)) for option in options
        )
        check_distinct(options, ids)
        if tail is not None:
            self._tails[key] = ids
        return ids

    @functools.cached_property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """The special token that the template writes after a reply; stops a reply, if there is one.

        A base model with a borrowed template has another end token in its configuration and
        would write past the end of its turn.
        """
        try:
            text = self._render(
                (Message("user", "a"), Message("assistant", _SENTINEL)), reply_follows=False
            )
        except ConfigError:
            return ()
        ids = self.encode(text.partition(_SENTINEL)[2])
        return (ids[0],) if ids and ids[0] in self.tokenizer.all_special_ids else ()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that already holds its special tokens."""
        if MARK in text:
            return encode_marked(text, self.encode)
        if self._borders is None:
            return self._encode_whole(text)
        starts = [match.start() for match in self._borders.finditer(text)]
        bounds = [0, *(start for start in starts if start), len(text)]
        ids: list[int] = []
        for start, end in itertools.pairwise(bounds):
            ids += self._segment_ids(text[start:end])
        return ids

    def _find_borders(self) -> re.Pattern[str] | None:
        """A pattern of the special tokens before which a text may be cut without changing a token.

        Fast tokenizers take special tokens out before anything else, unless one takes the spaces
        around it along. A trial decides: where the pieces differ from the whole, nothing is cut.
        """
        specials = [
            token for token in self.tokenizer.added_tokens_decoder.values() if token.special
        ]
        if self._backend is None or not specials or any(t.lstrip or t.rstrip for t in specials):
            return None
        names = sorted((re.escape(token.content) for token in specials), key=len, reverse=True)
        pattern, mark = re.compile("|".join(names)), specials[0].content
        for trial in (
            f"{mark} a word{mark}\n\nAnother  one. {mark}x",
            f"first {mark}{mark} second",
        ):
            pieces = [piece for piece in re.split(f"(?={re.escape(mark)})", trial) if piece]
            if [i for piece in pieces for i in self._encode_whole(piece)] != self._encode_whole(
                trial
            ):
                return None
        return pattern

    def _encode_whole(self, text: str) -> list[int]:
        if self._backend is not None:
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
            return ids
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a reply, without end-of-turn and other special tokens, but with those that mark
        where a thought ends.
        """
        if not self.thought_marks.isdisjoint(token_ids):
            kept = [i for i in token_ids if i in self.thought_marks or i not in self._special_ids]
            return str(self.tokenizer.decode(kept, skip_special_tokens=False))
        if self._backend is not None:
            return str(self._backend.decode(list(token_ids), skip_special_tokens=True))
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))

    def decode_after(self, before: int, token_id: int) -> str:
        """Text of a token in the middle of a text, where a space at its beginning shows."""
        first, both = [self.tokenizer.decode(ids) for ids in ([before], [before, token_id])]
        return str(both.removeprefix(first))

    def _render(self, messages: Messages, *, reply_follows: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [
                        {"role": m.role, "content": mark_spelled(m.content, self._spelled)}
                        for m in messages
                    ],
                    chat_template=self._template,
                    add_generation_prompt=reply_follows,
                    tokenize=False,
                    **self._args,
                )
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the model's chat template cannot be used: {error}") from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "jinja2":
                raise
            roles = ", ".join(message.role for message in messages)
            raise ConfigError(
                f"the model's chat template refuses a conversation of {roles}: {error}; "
                "use a template that takes these roles"
            ) from error

    def _tail(self, prompt: Rendered) -> str | None:
        """Text from the last special token on; tokens before it cannot depend on what follows."""
        for token_id in reversed(prompt.token_ids[-_LONGEST_TAIL:]):
            content = self._special_texts.get(token_id)
            if content is not None:
                return prompt.text[prompt.text.rindex(content) :]
        return None


def load_renderer(
    folder: Path, *, chat_template: Path | None, template_args: dict[str, Any]
) -> ChatRenderer:
    """The renderer of a model folder; remote code stays off."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each kind of tokenizer raises errors of its own
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model folder '{folder}': transformers cannot read its tokenizer ({said}); download "
            "it again"
        ) from error
    template = chat_template.read_text("utf-8") if chat_template is not None else None
    return ChatRenderer(tokenizer, template=template, template_args=template_args)
