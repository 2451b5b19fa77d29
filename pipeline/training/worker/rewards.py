"""The scores of replies that the policy writes during its training.

In:  a reward model's folder; replies as token ids of the policy
Out: one score per reply, the logit that `labeler: reward_model` would read, or None

The reward model reads the text in its own template and tokens, so it need not share the policy's.

None, which is no reward, goes to a reply without an end (as text it would seem to have one), to an
empty one, and to one whose logit is not a finite number. TRL leaves such a reply out of the mean
that the others are compared with, and learns nothing from it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from pipeline.engines.base import StartingModel
from pipeline.errors import ConfigError
from pipeline.training.worker.encoding import ReplyEncoder
from pipeline.training.worker.heldout import rewards
from pipeline.training.worker.kto_rows import Ids
from pipeline.training.worker.loading import encoder_of, load_weights


@dataclass
class Rewards:
    """A reward function as TRL calls it."""

    model: Any
    reader: ReplyEncoder
    """The reward model's tokens and template."""
    writer: ReplyEncoder
    """The policy's."""
    batch_size: int
    started: bool = False
    """Whether any reply had a score."""

    def __call__(
        self,
        completion_ids: Sequence[Ids],
        messages: Sequence[list[dict[str, str]]],
        row_id: Sequence[str],
        **_: Any,
    ) -> list[float | None]:
        """The score of each reply, in their order.

        Raises:
            ConfigError: none of the first replies has one, so nothing would ever be learned.
        """
        texts = {
            number: self.reader.conversation(messages[number], text, row_id[number])
            for number, ids in enumerate(completion_ids)
            if (text := self._finished(ids))
        }
        if not texts and not self.started:
            raise ConfigError(
                f"none of the policy's first {len(completion_ids)} replies ends within max_tokens "
                f"({max(map(len, completion_ids))}) with a text, so none has a score; raise "
                "max_tokens, or begin with a policy that ends its replies"
            )
        self.started = True
        # The model reads a score at the last token that is not padding.
        last = {ids[-1] for ids in texts.values()}
        pad_id = next(token for token in count() if token not in last)
        self.model.config.get_text_config().pad_token_id = pad_id
        scores = rewards(self.model, list(texts.values()), pad_id, self.batch_size)
        known = {n: score for n, score in zip(texts, scores, strict=True) if math.isfinite(score)}
        return [known.get(number) for number in range(len(completion_ids))]

    def _finished(self, ids: Ids) -> str:
        """The text of a reply, empty for one without an end."""
        if ids[-1] not in self.writer.end_ids:
            return ""
        text: str = self.writer.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def load_rewards(
    source: StartingModel, writer: ReplyEncoder, device: torch.device, batch_size: int
) -> Rewards:
    """The reward model on a device: in float32 on the CPU, elsewhere as it is stored."""
    model = load_weights(
        AutoModelForSequenceClassification,
        source.folder,
        dtype=torch.float32 if device.type == "cpu" else "auto",
    )
    reader = encoder_of(source.folder, source.chat_template, source.chat_template_args)
    return Rewards(model.to(device).eval(), reader, writer, batch_size)
