"""Tokenizer of the pocket model: byte-level BPE learned from the corpus, with a chat template.

Words are counted with a flattened frequency, so that the rare words of single tasks become one
token too. Turns are `<|role|>text<|end|>`; a rendered conversation is a prefix of any longer one,
which is what lets an engine reuse its cache from stage to stage.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from math import ceil, sqrt

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"
SPECIALS = (PAD, END, "<|user|>", "<|assistant|>", "<|system|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer of at most `vocab_size` tokens from texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # A list, not a generator: training holds a lock that pre-tokenizing would wait for.
    words = list(_flattened_words(pre_tokenizers.ByteLevel(add_prefix_space=False), texts))
    tokenizer.train_from_iterator(words, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _flattened_words(splitter: pre_tokenizers.ByteLevel, texts: Iterable[str]) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        spans = splitter.pre_tokenize_str(text)
        counts.update(text[start:end] for _, (start, end) in spans)
    for word, count in sorted(counts.items()):
        yield from [word] * ceil(sqrt(count))
