"""Principles are drawn as the published chains draw them: uniformly, with replacement."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import Constitution, Principle, load_constitution
from pipeline.errors import ConfigError
from pipeline.ids import row_id

SHIPPED = sorted(
    path for path in (PROJECT_ROOT / "constitutions").glob("*.yaml") if path.name != "schema.yaml"
)
DRAWS = 16_000


def make(*weights: float, **changes: str) -> Constitution:
    """A constitution with one principle per weight; `changes` go to the first."""
    principles = [
        Principle(
            **{
                "id": f"p-{n}",
                "critique_request": f"critique {n}",
                "revision_request": f"revise {n}",
                "comparison_request": f"compare {n}",
                "weight": weight,
                **(changes if n == 0 else {}),
            }
        )
        for n, weight in enumerate(weights)
    ]
    return Constitution(name="made", principles=tuple(principles))


def draws(constitution: Constitution, count: int = DRAWS, seed: int = 0) -> Counter[str]:
    return Counter(
        constitution.draw(seed, "critique", row_id("response", n), 1).id for n in range(count)
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_constitution_loads(path: Path) -> None:
    constitution = load_constitution(path)
    assert constitution.source and constitution.description
    assert path.read_text().startswith("# yaml-language-server: $schema=")


def test_draws_are_uniform() -> None:
    """Chi-square over 16 principles, 15 degrees of freedom: 37.70 is exceeded once in 1,000."""
    found = draws(make(*[1.0] * 16))
    expected = DRAWS / 16
    chi_square = sum((count - expected) ** 2 / expected for count in found.values())
    assert len(found) == 16
    assert chi_square < 37.70


def test_chains_repeat_as_published() -> None:
    """Four draws of 16 repeat with 1 - (15/16)(14/16)(13/16) = 0.3335; 4 standard errors at 4,000
    chains are 4 sqrt(0.3335 * 0.6665 / 4000) = 0.0298.
    """
    constitution = make(*[1.0] * 16)
    chains = [
        [constitution.draw(0, "critique", row_id("response", n), k).id for k in range(1, 5)]
        for n in range(4_000)
    ]
    share = sum(len(set(chain)) < 4 for chain in chains) / 4_000
    assert share == pytest.approx(0.3335, abs=0.0298)


def test_weights_shift_the_draw() -> None:
    """Weights 3 and 1: share 0.75; 4 standard errors are 4 sqrt(0.75 * 0.25 / 16000) = 0.0137."""
    assert draws(make(3, 1))["p-0"] / DRAWS == pytest.approx(0.75, abs=0.0137)


def test_draw_depends_on_row_not_order() -> None:
    constitution = make(*[1.0] * 16)
    forward = {n: constitution.draw(0, "judge", f"row-{n}").id for n in range(50)}
    backward = {n: constitution.draw(0, "judge", f"row-{n}").id for n in reversed(range(50))}
    assert forward == backward
    assert forward != {n: constitution.draw(1, "judge", f"row-{n}").id for n in range(50)}


def test_critiques_and_labels_draw_apart() -> None:
    """One row under two purposes: 1 of 16 agree by chance, far from all."""
    constitution = make(*[1.0] * 16)
    same = sum(
        constitution.draw(0, "critique", f"row-{n}") == constitution.draw(0, "judge", f"row-{n}")
        for n in range(1_000)
    )
    assert same < 150


def test_hash_follows_what_models_read() -> None:
    plain = make(1, 1)
    assert plain.hash == make(1, 1).hash
    assert plain.principles[0].hash != make(1, 1, revision_request="other").principles[0].hash
    assert plain.principles[0].hash != make(1, 1, id="renamed").principles[0].hash
    assert plain.hash != make(1, 1, critique_request="other").hash
    assert plain.hash != make(2, 1).hash
    assert plain.principles[0].hash == make(2, 1).principles[0].hash


def test_principle_is_found_by_id() -> None:
    constitution = make(1, 1)
    assert constitution.by_id("p-1").comparison_request == "compare 1"
    with pytest.raises(KeyError):
        constitution.by_id("p-9")


GOOD = """\
name: small
principles:
  - id: a
    critique_request: c
    revision_request: r
    comparison_request: w
"""


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD + GOOD.split("principles:\n")[1], "two principles have the id 'a'; .* rename one"),
        ("name: small\nprinciples: []\n", "no principle, but at least one is needed"),
        (
            GOOD.replace("    revision_request: r\n", ""),
            "'principles.0.revision_request' is missing",
        ),
        (
            GOOD.replace("critique_request: c", "critique_request: '  '"),
            "line 4: principles.0.critique_request: the request is empty",
        ),
        (
            GOOD + "    wieght: 2\n",
            "line 7: 'principles.0.wieght' is not a known key; did you mean 'weight'",
        ),
        (
            GOOD + "    weight: 0\n",
            "line 7: 'principles.0.weight' is 0, but input should be greater than 0",
        ),
        (GOOD + "    weight: .inf\n", "line 7: 'principles.0.weight' is inf"),
        (GOOD.replace("id: a", "id: a b"), "line 3: 'principles.0.id' is 'a b'"),
        ("name: small\n", "'principles' is missing; add it"),
        ("", "is empty, but a mapping is needed"),
    ],
)
def test_faulty_constitution_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^constitution {path}.*{message}"):
        load_constitution(path)
