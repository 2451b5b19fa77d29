"""Find principles that explain labels, and measure them on pairs that they were not found on.

In:  a recipe (its judge proposes and votes), label sources; candidate rules from a file if given
Out: Discovery: the found principles, how well they, the recipe's constitution and the judge alone
     explain held-out labels, and the traits that go with the labels

Pairs of one conversation are all on one side of the split. Each vote asks in both orders and counts
only where they agree. Answers are kept in outputs/discover/NAME/answers.jsonl, so the same command
continues one that was stopped.

Does not: prove that a principle caused a label. It explains it: another principle that prefers the
same responses would too.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.checks import label, run_check
from pipeline.config import RunConfig
from pipeline.config.paths import resolve_path
from pipeline.constitution import Constitution, Principle
from pipeline.discover.proposals import merge, propose, read_rules
from pipeline.discover.traits import TRAITS, is_named, trait_votes
from pipeline.discover.votes import Tally, Vote, explained, luck, select, tally
from pipeline.engines import open_engine
from pipeline.engines.base import Engine
from pipeline.errors import CheckError, DataError, EngineError, RunStoppedError
from pipeline.ids import content_hash, input_hash, uniform
from pipeline.judge_eval.items import usable_rows
from pipeline.labeling.judge import Judge
from pipeline.prompting.templates import JUDGE_VARIABLES, PromptTemplate
from pipeline.records import JudgmentRow
from pipeline.run.context import resolved_engine
from pipeline.run.start import check_recipe, runs_root
from pipeline.sources.config import AnySource
from pipeline.sources.importing import import_source
from pipeline.sources.rows import LabeledRow
from pipeline.stats import Estimate, clustered_share

MAX_FAILED = 0.2
"""Share of failed calls that stops the search: what is left would say little."""
DRAWS = 200
"""Random labelings that the selection is compared with."""
LEAST = 10
"""Pairs on each side of the split."""
ALONE = "Select the better response"
"""What the judge is asked without a principle."""


@dataclass(frozen=True)
class Request:
    """What to search, and how widely."""

    recipe: Path
    sources: tuple[AnySource, ...]
    rules: Path | None = None
    """File with candidate rules; None to ask the judge for them."""
    limit: int = 200
    """Pairs, drawn by seed; half of the conversations are held out."""
    candidates: int = 20
    """Rules that are voted on, the most frequent ones."""
    per_pair: int = 3
    """Rules that the judge proposes for a pair."""
    most: int = 5
    """Principles of the found constitution."""
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """One principle or trait, with its votes on the pairs that it was not found on."""

    name: str
    votes: Tally
    proposed: int = 0
    """How often the judge proposed it."""
    explains: Estimate | None = None
    """Share of its deciding votes that agree with the labels."""
    named: bool = False
    """Of a trait: whether the recipe's constitution has a word for it."""


@dataclass(frozen=True)
class Discovery:
    """What the labels reward, as far as the candidates can tell."""

    train_pairs: int
    heldout_pairs: int
    candidates: list[Found]
    """All that were voted on, by their votes on the pairs for training; the kept ones first."""
    kept: list[Found]
    """The found constitution, in the order of what each adds."""
    luck: float
    """Share of random labelings that as many candidates explain as well."""
    found: Estimate | None
    """Held-out labels that the found constitution explains; a pair that it does not decide counts
    0.5, as in the two below."""
    given: Estimate | None
    """The share that the recipe's constitution explains, its checks included."""
    alone: Estimate | None
    """The share that the judge explains without any principle."""
    num_votes: int
    """All votes asked for, in training and on held-out pairs."""
    num_unreadable: int
    """Of these, the ones whose replies could not be read or whose call failed; none decides
    anything."""
    traits: list[Found]
    """On all pairs, those that go with the labels, or against them, clearly."""


async def discover(request: Request, say: Callable[[str], None]) -> Discovery:
    """Search, test and measure.

    Raises:
        UserError: recipe, sources or rules cannot be used, or there are too few pairs.
        RunStoppedError: too many calls failed; the answers are kept.
    """
    checked = check_recipe(request.recipe)
    rules = read_rules(request.rules) if request.rules else None
    train, heldout = split_pairs(request)
    return await _search(request, checked.config, checked.constitution, rules, train, heldout, say)


def split_pairs(request: Request) -> tuple[list[LabeledRow], list[LabeledRow]]:
    """Pairs to find principles on, and pairs to measure them on.

    Raises:
        DataError: a source cannot be read, or one side has too few pairs.
    """
    rows = usable_rows([import_source(source, seed=request.seed) for source in request.sources])
    ranked = sorted(rows, key=lambda row: uniform("discover", request.seed, row.row_id))
    drawn = ranked[: request.limit]
    sides: tuple[list[LabeledRow], list[LabeledRow]] = ([], [])
    for row in drawn:
        sides[uniform("discover split", request.seed, row.prompt_id) < 0.5].append(row)
    if min(map(len, sides)) < LEAST:
        raise DataError(
            f"{len(drawn)} labeled pairs leave {min(map(len, sides))} on one side of the split, "
            f"but {LEAST} on each side are needed; give more pairs of more conversations"
        )
    return sides


class Answers:
    """What the model said, on disk as it comes; an answer is asked for once."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier call got; a line that cannot be read is asked for again."""
        self._known: dict[str, Any] = {}
        self.failed: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines():
            with suppress(ValueError, TypeError):
                self._known |= json.loads(line)
        self._stream = path.open("ab")
        if data and not data.endswith(b"\n"):
            self._stream.write(b"\n")

    async def get(self, key: str, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The answer to a question, None where the call failed."""
        if key not in self._known:
            try:
                self._known[key] = await ask()
            except EngineError as error:
                self.failed.append(str(error))
                return None
            self._stream.write(json.dumps({key: self._known[key]}).encode() + b"\n")
            self._stream.flush()
        return self._known[key]

    def check(self, asked: int) -> None:
        """Raises RunStoppedError when too many of the calls since the last check failed."""
        if len(self.failed) > MAX_FAILED * asked:
            raise RunStoppedError(
                f"{len(self.failed)} of {asked} calls failed ({self.failed[0]}); the answers are "
                "kept: correct the cause, then give the same command again"
            )
        self.failed.clear()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


async def _search(
    request: Request,
    config: RunConfig,
    constitution: Constitution,
    rules: list[str] | None,
    train: list[LabeledRow],
    heldout: list[LabeledRow],
    say: Callable[[str], None],
) -> Discovery:
    template = PromptTemplate.from_file(resolve_path(config.templates.judge), JUDGE_VARIABLES)
    name = f"{config.name}-{content_hash([row.row_id for row in (*train, *heldout)])[:8]}"
    answers = Answers(runs_root().parent / "discover" / name / "answers.jsonl")
    try:
        async with open_engine(resolved_engine(config.judge_engine)) as engine:
            judge = Judge(engine, constitution, template, config.preference.judge, config.seed)
            if rules:
                counts = dict(list(Counter(rules).items())[: request.candidates])
                if more := len({*rules}) - len(counts):
                    say(f"{more} more rules of {request.rules} are left out; raise --candidates")
            else:
                proposed = await _proposed(request, engine, train, answers, say)
                counts = dict(merge(proposed, request.candidates))
            say(f"voting on {len(counts)} candidates over {len(train)} pairs, in both orders")
            votes = await _votes(judge, list(counts), train, answers)
            kept = select(votes, request.most)
            given = [principle.comparison_request for principle in constitution.judged]
            say(f"measuring {len(kept)} of them on {len(heldout)} held-out pairs")
            measured = {**await _votes(judge, [*kept, *given, ALONE], heldout, answers)}
    finally:
        answers.close()
    for principle in constitution.checked:
        # A name that no rule has: rules are asked about by their text.
        given.append(f"check {principle.id}")
        measured[given[-1]] = [_checked_vote(principle, row) for row in heldout]
    every = [vote for asked in (votes, measured) for row in asked.values() for vote in row]
    tallies = {rule: tally(row) for rule, row in votes.items()}
    order = [*kept, *(rule for rule in counts if rule not in kept)]
    return Discovery(
        train_pairs=len(train),
        heldout_pairs=len(heldout),
        candidates=[Found(rule, tallies[rule], counts[rule]) for rule in order],
        kept=[_found(rule, measured[rule], heldout, counts[rule]) for rule in kept],
        luck=luck(
            votes, request.most, [row.prompt_id for row in train], draws=DRAWS, seed=request.seed
        ),
        found=_share(explained(measured, kept), heldout),
        given=_share(explained(measured, given), heldout),
        alone=_share(explained(measured, [ALONE]), heldout),
        num_votes=len(every),
        num_unreadable=every.count(None),
        traits=_traits(
            [*train, *heldout],
            [text for p in constitution.principles for text in (p.comparison_request, p.rationale)],
        ),
    )


async def _proposed(
    request: Request,
    engine: Engine,
    train: Sequence[LabeledRow],
    answers: Answers,
    say: Callable[[str], None],
) -> list[str]:
    """All rules that the judge proposes.

    Raises:
        DataError: it proposes none.
    """
    say(f"asking {engine.name} why the preferred response of {len(train)} pairs was preferred")

    async def ask(row: LabeledRow) -> list[str]:
        key = content_hash(
            ["propose", engine.fingerprint, request.per_pair, request.seed, *_asked_about(row)]
        )
        said = await answers.get(key, lambda: propose(engine, row, request.per_pair, request.seed))
        return said or []

    said = await asyncio.gather(*(ask(row) for row in train))
    answers.check(len(train))
    proposed = [rule for rules in said for rule in rules]
    if not proposed:
        raise DataError(
            f"{engine.name} proposed no rule that begins with 'Select the response that'; name a "
            "larger model as the judge, or give candidates with --principles FILE"
        )
    return proposed


async def _votes(
    judge: Judge, rules: Sequence[str], rows: Sequence[LabeledRow], answers: Answers
) -> Mapping[str, list[Vote]]:
    """By rule a vote for each row."""

    async def vote(rule: str, row: LabeledRow) -> Vote:
        key = content_hash(
            ["vote", judge.engine.fingerprint, judge.settings_hash, rule, *_asked_about(row)]
        )
        principle = Principle(
            id="candidate", critique_request=rule, revision_request=rule, comparison_request=rule
        )

        async def ask() -> Vote:
            empty = JudgmentRow(row_id=key, first_id="chosen", second_id="rejected")
            return _vote(
                await judge.label(empty, row.messages, principle, row.chosen, row.rejected)
            )

        answer: Vote = await answers.get(key, ask)
        return answer

    unique = list(dict.fromkeys(rules))
    votes = await asyncio.gather(*(vote(rule, row) for rule in unique for row in rows))
    answers.check(len(votes))
    n = len(rows)
    return {rule: list(votes[i * n : (i + 1) * n]) for i, rule in enumerate(unique)}


def _asked_about(row: LabeledRow) -> tuple[str, str]:
    """Id and texts of a pair: a data set can keep its ids and exchange the sides."""
    return row.row_id, input_hash(row.messages, row.chosen, row.rejected)


def _vote(row: JudgmentRow) -> Vote:
    """1 where both orders prefer the first response, -1 the second; 0 where they disagree."""
    if row.status != "ok" or row.prob_forward is None or row.prob_swapped is None:
        return None
    sides = (row.prob_forward - 0.5, 0.5 - row.prob_swapped)
    return (min(sides) > 0) - (max(sides) < 0)


def _checked_vote(principle: Principle, row: LabeledRow) -> Vote:
    """What the check of a principle says about a pair; None where it raised."""
    assert principle.check is not None
    try:
        results = [
            run_check(principle.check, text, row.messages) for text in (row.chosen, row.rejected)
        ]
    except CheckError:
        return None
    prefers = label(*results)
    return (prefers > 0.5) - (prefers < 0.5)


def _found(name: str, votes: Sequence[Vote], rows: Sequence[LabeledRow], proposed: int) -> Found:
    deciding = [((v + 1) / 2, row) for v, row in zip(votes, rows, strict=True) if v]
    share = _share([value for value, _ in deciding], [row for _, row in deciding])
    return Found(name, tally(votes), proposed, share)


def _traits(rows: Sequence[LabeledRow], principles: Sequence[str]) -> list[Found]:
    """Traits whose interval excludes one half, the strongest first."""
    pairs = [(row.chosen, row.rejected) for row in rows]
    traits = []
    for name, trait in TRAITS.items():
        found = _found(name, trait_votes(trait, pairs), rows, 0)
        if found.explains and not found.explains.low <= 0.5 <= found.explains.high:
            named = is_named(trait, principles)
            traits.append(Found(name, found.votes, 0, found.explains, named))
    return sorted(
        traits, key=lambda t: -abs(t.explains.share - 0.5) * t.votes.relevance if t.explains else 0
    )


def _share(values: Sequence[float], rows: Sequence[LabeledRow]) -> Estimate | None:
    """Mean over pairs, its interval clustered by conversation."""
    sums: dict[str, list[float]] = {}
    for value, row in zip(values, rows, strict=True):
        sums.setdefault(row.prompt_id, []).append(value)
    return clustered_share([sum(v) for v in sums.values()], [len(v) for v in sums.values()])
