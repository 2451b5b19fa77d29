"""The training text: all families of examples, mixed by shares."""

import random
from collections.abc import Iterator

from models.pocket.corpus import Example, write_chain, write_judge, write_sample
from models.pocket.labeling import write_few_shot, write_follow_up_turn, write_reasoned, write_score

WRITERS = (
    write_sample,
    write_chain,
    write_judge,
    write_few_shot,
    write_reasoned,
    write_score,
    write_follow_up_turn,
)
Shares = tuple[float, ...]
"""Share of each family in the number of examples, in the order of WRITERS; families at the end may
be left out."""


def write_corpus(
    num_examples: int, seed: int, shares: Shares = (0.28, 0.34, 0.38), *, wide: bool = False
) -> Iterator[Example]:
    """Draw examples; the same seed gives the same examples. `wide` adds ways of asking
    (world.MORE_ASKS).
    """
    rng = random.Random(seed)
    for writer in rng.choices(WRITERS[: len(shares)], weights=shares, k=num_examples):
        yield writer(rng, wide=wide)
