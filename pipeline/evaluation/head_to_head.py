"""Which policy the judge prefers on held-out prompts.

In:  shards of evaluation/judge-<policy>-vs-<other>/; `first` is the policy's response
Out: win rates with intervals clustered by prompt

A win is 1, a tie 0.5: a label within the tie width, or two identical responses, which the judge is
not asked about. What it could not read is counted and left out. The mean of the soft labels is
given as well: it needs no tie width and shows how sure the judge was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.dataset import parent_run
from pipeline.evaluation.length_control import length_controlled
from pipeline.evaluation.policy_measures import policy_order
from pipeline.evaluation.results import DecidingJudge, PrincipleWins, WinRate
from pipeline.evaluation.shard_columns import RowDict, grouped, iter_shards, texts_by_id
from pipeline.soft_labels import orders_agree, outcome
from pipeline.stats import Tally
from pipeline.store import RunDir
from pipeline.store.shards import stage_manifests
from pipeline.store.stage_names import (
    EVALUATION,
    JUDGE,
    PREFERENCE,
    SAMPLE,
    split_folder,
    stage_folders,
)

NO_WORDS: Mapping[str, int] = {}
IDENTICAL = "identical responses"
COLUMNS = (
    "prompt_id",
    "first_id",
    "second_id",
    "status",
    "reason",
    "principle_id",
    "prob_forward",
    "prob_swapped",
    "prob_first",
    "position_gap",
)


@dataclass
class Match:
    """Running counts of one policy against another."""

    wins: Tally = field(default_factory=Tally)
    soft: Tally = field(default_factory=Tally)
    gaps: list[float] = field(default_factory=list)
    """Position gaps of the labels that come from both orders."""
    ties: int = 0
    identical: int = 0
    unparsed: int = 0
    left_out: int = 0
    """Failed rows, and those whose responses failed."""
    agreeing: int = 0
    by_principle: dict[str, list[float]] = field(default_factory=dict)
    """Outcomes."""
    lengths: list[list[tuple[float, float]]] = field(default_factory=list)
    """By prompt: outcomes with the words of the policy's reply minus those of the other one."""

    def add_prompt(
        self, rows: list[RowDict], tie_width: float, words: Mapping[str, int] = NO_WORDS
    ) -> None:
        """All comparisons of one prompt.

        Args:
            words: number of words by id of a response.
        """
        self.lengths.append([])
        wins: list[float] = []
        soft: list[float] = []
        for row in rows:
            label = row["prob_first"]
            if row["status"] == "ok" and label is not None:
                result = outcome(label, tie_width)
                self.by_principle.setdefault(row["principle_id"], []).append(result)
                forward, swapped = row["prob_forward"], row["prob_swapped"]
                # A label that comes from scores has no orders, hence no consistency.
                if forward is not None and swapped is not None:
                    self.gaps.append(row["position_gap"])
                    self.agreeing += orders_agree(forward, swapped)
            elif row["status"] == "dropped" and row["reason"] == IDENTICAL:
                result = label = 0.5
                self.identical += 1
            else:
                self.unparsed += row["status"] == "unparsed"
                self.left_out += row["status"] != "unparsed"
                continue
            self.ties += result == 0.5
            wins.append(result)
            soft.append(label)
            sides = (words.get(row["first_id"]), words.get(row["second_id"]))
            if sides[0] is not None and sides[1] is not None:
                self.lengths[-1].append((result, sides[0] - sides[1]))
        self.wins.add(wins)
        self.soft.add(soft)

    def metrics(self, policy: str, against: str, *, draws: int, seed: int) -> WinRate:
        """The entry of metrics.json."""
        rate = self.wins.bootstrap(draws=draws, seed=seed)
        ordered = len(self.gaps)
        return WinRate(
            policy=policy,
            against=against,
            win_rate=rate.share if rate else None,
            low=rate.low if rate else None,
            high=rate.high if rate else None,
            num_comparisons=rate.n if rate else 0,
            num_prompts=self.wins.num_clusters,
            tie_share=self.ties / rate.n if rate else None,
            identical=self.identical,
            unparsed=self.unparsed,
            left_out=self.left_out,
            length_controlled=length_controlled(self.lengths),
            prob_preferred=self.soft.bootstrap(draws=draws, seed=seed),
            position_consistency=self.agreeing / ordered if ordered else None,
            mean_position_gap=sum(self.gaps) / ordered if ordered else None,
            by_principle={
                name: PrincipleWins(win_rate=sum(wins) / len(wins), n=len(wins))
                for name, wins in sorted(self.by_principle.items())
            },
        )


def deciding_judge(run: RunDir) -> DecidingJudge | None:
    """The model that compared the policies; None where none were compared.

    Raises:
        StoreError: the run continues a data set that is gone.
    """
    judges = sorted(_engines(run, EVALUATION, JUDGE))
    if not judges:
        return None
    name, fingerprint = judges[-1]
    version: RunDir | None = run
    labelers: set[str] = set()
    while version is not None:
        labelers |= {each for pair in _engines(version, PREFERENCE) for each in pair}
        version = parent_run(version)
    labeled = bool({name, fingerprint} & labelers)
    return DecidingJudge(model=name, fingerprint=fingerprint, labeled=labeled)


def _engines(run: RunDir, phase: str, kind: str = "") -> set[tuple[str, str]]:
    """Names and fingerprints of the models that labeled in a phase, or made one kind of stage."""
    return {
        (manifest.engine.get("name", ""), manifest.engine.get("fingerprint", ""))
        for folder in stage_folders(run.root, phase, kind)
        if split_folder(folder)[1] != SAMPLE
        for manifest in stage_manifests(run.root, folder)
        if manifest.engine
    }


def win_rates(root: Path, *, tie_width: float, draws: int, seed: int) -> list[WinRate]:
    """Entries of `win_rates`, the comparisons with the initial policy first."""
    rates = []
    for folder in stage_folders(root, EVALUATION, JUDGE):
        match = Match()
        for manifest, rows in iter_shards(root, folder, COLUMNS):
            texts = texts_by_id(root, list(manifest.inputs))
            words = {row_id: len(text.split()) for row_id, text in texts.items()}
            for group in grouped(rows, "prompt_id").values():
                match.add_prompt(group, tie_width, words)
        policy, _, against = split_folder(folder)[2].partition("-vs-")
        rates.append(match.metrics(policy, against, draws=draws, seed=seed))
    return sorted(rates, key=lambda r: (policy_order(r.against), -policy_order(r.policy)))
