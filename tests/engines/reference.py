"""The slow, obvious way to the same numbers: transformers, one forward pass for each text."""

from pathlib import Path

from pipeline.types import Messages


class Reference:
    """Log-probabilities from transformers in float32.

    Args:
        folder: the model's folder.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def text(self, messages: Messages, *, reply_follows: bool = True) -> str:
        """The rendered conversation."""
        return str(
            self.tokenizer.apply_chat_template(
                [message.as_dict() for message in messages],
                tokenize=False,
                add_generation_prompt=reply_follows,
            )
        )

    def ids(self, text: str) -> list[int]:
        """Token ids, without added special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def option_logprobs(
        self, messages: Messages, options: list[str], reply_prefix: str = ""
    ) -> list[float]:
        """Sum of log-probabilities (nats) of each option's tokens."""
        before = self.text(messages) + reply_prefix
        return [self._end(before, before + option) for option in options]

    def reply_logprob(self, messages: Messages) -> float:
        """Sum of log-probabilities of the last message's content."""
        text = self.text(messages, reply_follows=False)
        start = text.rindex(messages[-1].content)
        return self._end(text[:start], text[: start + len(messages[-1].content)])

    def _end(self, before: str, whole: str) -> float:
        import torch

        head, ids = self.ids(before), self.ids(whole)
        assert ids[: len(head)] == head
        with torch.no_grad():
            logprobs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return float(sum(logprobs[n - 1, ids[n]] for n in range(len(head), len(ids))))
