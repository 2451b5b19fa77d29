"""The prompts that a night or a round does not ask again: those that the version before it has, and
with `nightly.near_duplicates` those that are nearly one of them.

In:  a recipe, and the run whose version is extended
Out: AskedBefore
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from pipeline.audits.diversity import near_earlier
from pipeline.config import RunConfig
from pipeline.data.dataset import known_prompt_ids, parent_run
from pipeline.data.id_set import IdSet
from pipeline.data.prompts import read_prompts
from pipeline.errors import StoreError
from pipeline.records import PromptRow
from pipeline.stages.phrases import split_words
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import PROMPTS


@dataclass(frozen=True)
class AskedBefore:
    """Ids of prompts."""

    equal: IdSet = field(default_factory=IdSet)
    """Prompts of the version and all versions before it."""
    near: frozenset[str] = frozenset()
    """Prompts of the recipe that are not among them, but nearly one of them."""

    def __contains__(self, prompt: object) -> bool:
        return prompt in self.equal or prompt in self.near

    def __iter__(self) -> Iterator[str]:
        return chain(self.equal, self.near)


def asked_before(config: RunConfig, parent: RunDir | None) -> AskedBefore:
    """What the version of `parent` has of the recipe's prompts; nothing without a parent.

    Raises:
        DataError: a source of prompts cannot be read.
        StoreError: a run before it is gone or damaged.
    """
    if parent is None:
        return AskedBefore()
    equal = IdSet(known_prompt_ids(parent))
    likeness = config.nightly.near_duplicates
    if likeness is None:
        return AskedBefore(equal)
    new = read_prompts(config.prompts.train, exclude=equal)
    try:
        return AskedBefore(equal, nearly_asked(new, _prompts_of_nights(parent), likeness))
    except StoreError as error:
        raise StoreError(
            f"{error}, or set nightly.near_duplicates to null, which leaves out equal prompts alone"
        ) from None


def nearly_asked(
    new: Iterable[PromptRow], earlier: Iterable[PromptRow], likeness: float
) -> frozenset[str]:
    """Ids of the new prompts that are near-duplicates of an earlier one, all turns taken together.

    Args:
        likeness: least Jaccard index of the three-word runs; see `near_earlier`.
    """
    # A prompt without a word, such as an emoji, is like every other one.
    words = {row.row_id: own for row in new if (own := split_words(_text(row)))}
    texts = [*words.values()]
    marked = near_earlier(texts, (split_words(_text(row)) for row in earlier), likeness)
    return frozenset(identity for i, identity in enumerate(words) if i in marked)


def _prompts_of_nights(run: RunDir | None) -> Iterator[PromptRow]:
    while run is not None:
        yield from stage_rows(run.root, PROMPTS)
        run = parent_run(run)


def _text(row: PromptRow) -> str:
    return "\n".join(message.content for message in row.messages)
