"""The points of a sweep: which fields of a recipe take which values.

In:  `beta=0.01,0.05` and the like, and the recipe
Out: Points, every combination once, as overrides of the recipe's text
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from pipeline.config import RunConfig
from pipeline.config.training import PreferenceMethod, ReferenceSection
from pipeline.errors import ConfigError

TRAIN = "preference.train."
FIELDS = {
    "beta": f"{TRAIN}beta",
    "method": f"{TRAIN}method",
    "learning_rate": f"{TRAIN}learning_rate",
    "pairs": f"{TRAIN}max_rows",
    "constitution": "constitution",
}
"""Short names of fields, and their paths in a recipe."""
SECTIONS = {section().method: section for section in get_args(PreferenceMethod)}


@dataclass(frozen=True)
class Point:
    """One combination of values."""

    values: dict[str, str]
    """By the name that the sweep gave the field; those that the method does not have are left out.
    """
    overrides: tuple[str, ...]
    """As `rlaif run --set` takes them."""

    @property
    def title(self) -> str:
        """The values for people, such as `method=ipo, beta=0.1`."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())


def read_points(config: RunConfig, over: Sequence[str]) -> list[Point]:
    """Every combination of the values, once: `beta` makes no two points of a method without it.

    Args:
        over: each `NAME=VALUE,VALUE`; a name of `FIELDS` or a path in the recipe.

    Raises:
        ConfigError: a field is unknown or named twice, no method of the sweep has it, or there are
            rounds.
    """
    axes: dict[str, list[str]] = {}
    for each in over:
        name, _, values = each.partition("=")
        known = name in FIELDS or name.partition(".")[0] in RunConfig.model_fields
        if not known or not all(values.split(",")):
            raise ConfigError(
                f"--over {each[:120]!r} does not name a field with values; write "
                f"{', '.join(FIELDS)}, or a path in the recipe such as "
                "preference.pair.tie_width, then =VALUE,VALUE"
            )
        path = FIELDS.get(name, name)
        if path in (FIELDS.get(other, other) for other in axes):
            named = name if name in axes else path
            raise ConfigError(f"--over names '{named}' twice; give all its values at once")
        axes[name] = list(dict.fromkeys(values.split(",")))
    if config.rounds > 1 or "rounds" in axes:
        raise ConfigError(
            "rounds make a series of runs, and a point of a sweep is one run; leave `rounds` out, "
            "and give the chosen values to the rounds"
        )
    combinations = [
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    points = {point.overrides: point for point in (_point(config, c) for c in combinations)}
    unused = [name for name in axes if all(name not in p.values for p in points.values())]
    if unused:
        raise ConfigError(
            f"--over {unused[0]}: no method of the sweep has this field; leave it out, or sweep "
            "over another method"
        )
    return list(points.values())


def _point(config: RunConfig, values: dict[str, str]) -> Point:
    paths = {name: FIELDS.get(name, name) for name in values}
    trained = [name for name, path in paths.items() if path.startswith(TRAIN)]
    if not trained:
        return Point(values, tuple(f"{paths[name]}={value}" for name, value in values.items()))
    train = config.preference.train
    if train is None:
        raise ConfigError(
            f"--over {trained[0]} changes preference.train, which the recipe does not have; add it"
        )
    chosen = {paths[name]: values[name] for name in trained}
    method = chosen.get(FIELDS["method"], train.method)
    if method not in SECTIONS:
        raise ConfigError(
            f"--over method: there is no '{method[:80]}'; the methods are {', '.join(SECTIONS)}"
        )
    fields = SECTIONS[method].model_fields
    kept = {
        name: value
        for name, value in values.items()
        if name not in trained or paths[name].removeprefix(TRAIN).partition(".")[0] in fields
    }
    overrides = [f"{paths[name]}={value}" for name, value in kept.items() if name != "method"]
    if method != train.method:
        # The other method's own fields would be refused.
        written = train.model_dump(mode="json", exclude_unset=True)
        section = {name: value for name, value in written.items() if name in fields}
        if not all(issubclass(each, ReferenceSection) for each in (type(train), SECTIONS[method])):
            section.pop("beta", None)  # the weight of another term there
        overrides.insert(0, f"preference.train={json.dumps(section | {'method': method})}")
    return Point(kept, tuple(overrides))
