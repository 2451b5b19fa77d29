"""The one table of stages: the rows that each kind makes, their order, and their folders.

A stage's folder is `<phase>/<kind>`, or `<phase>/<kind>-<part>` where a phase has several of a
kind:

    supervised/revise-2           a round
    preference/judge-2            a judge of the panel; the first one has no number
    preference/sample-weaker      a further policy
    evaluation/sample-tuned       a policy
    evaluation/judge-A-vs-B       two policies
    evaluation/directed-3         a direction

No other file spells the name of a stage or parses the name of a folder.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.records import (
    CanaryRow,
    CritiqueRow,
    JudgmentRow,
    PreferenceRow,
    ResponseRow,
    RevisionRow,
    Row,
    ScoreRow,
)

PROMPTS, SUPERVISED, PREFERENCE = "prompts", "supervised", "preference"
HELDOUT, EVALUATION = "heldout", "evaluation"
PHASES = (PROMPTS, SUPERVISED, PREFERENCE, HELDOUT, EVALUATION)
"""Top-level folders of shards, in the order in which a run fills them."""
POLICIES = ("initial", "sl_cai", "tuned")
"""The policies of a run, first to last; parts of the evaluation's folders."""

OTHER_POLICIES = ("weaker", "stronger")
"""Further policies whose responses the preference phase compares."""

SAMPLE, CRITIQUE, REVISE, EFFICACY = "sample", "critique", "revise", "efficacy"
DIRECTED = "directed"
SCORE, JUDGE, CANARY, POOL, PAIR = "score", "judge", "canary", "pool", "pair"


@dataclass(frozen=True)
class StageKind:
    """What every part of the program needs to know about a kind of stage."""

    row_type: type[Row]
    """Type of the rows that it makes."""
    titles: dict[str, str]
    """Names of its rows for people, by the phase that makes them."""
    text: str = ""
    """Column with the text of a response; empty for stages that write no response."""
    interleaved: bool = False
    """True when the stages of a round alternate: critique 1, revise 1, critique 2, revise 2."""


STAGES: dict[str, StageKind] = {
    SAMPLE: StageKind(
        ResponseRow,
        {
            SUPERVISED: "initial responses",
            PREFERENCE: "compared responses",
            EVALUATION: "responses to held-out prompts",
        },
        text="response",
    ),
    CRITIQUE: StageKind(CritiqueRow, {SUPERVISED: "critiques"}, interleaved=True),
    REVISE: StageKind(RevisionRow, {SUPERVISED: "revisions"}, text="revision", interleaved=True),
    EFFICACY: StageKind(JudgmentRow, {SUPERVISED: "revisions against the texts before them"}),
    DIRECTED: StageKind(ResponseRow, {EVALUATION: "responses in a direction"}, text="response"),
    SCORE: StageKind(
        ScoreRow, {PREFERENCE: "scores", EVALUATION: "ratings of responses in a direction"}
    ),
    JUDGE: StageKind(JudgmentRow, {PREFERENCE: "labels", EVALUATION: "comparisons of policies"}),
    CANARY: StageKind(CanaryRow, {PREFERENCE: "canaries"}),
    POOL: StageKind(JudgmentRow, {PREFERENCE: "pooled labels"}),
    PAIR: StageKind(PreferenceRow, {PREFERENCE: "pairs"}),
}
"""Every kind of stage, in the order in which a shard passes through them."""


def stage_folder(phase: str, kind: str, part: int | str = "") -> str:
    """Folder of a stage below the run."""
    return f"{phase}/{kind}-{part}" if part else f"{phase}/{kind}"


def nth_folder(kind: str, number: int) -> str:
    """Folder of judge or scorer `number` (from 0) of the panel in the preference phase."""
    return stage_folder(PREFERENCE, kind, number + 1 if number else "")


def split_folder(folder: str) -> tuple[str, str, str]:
    """Phase, kind and part of a folder; kind and part are empty for prompts."""
    phase, _, name = folder.partition("/")
    kind, _, part = name.partition("-")
    return phase, kind, part


def stage_title(folder: str) -> str:
    """The name of a folder's rows for people; the folder's own name when the table has no title."""
    phase, kind, part = split_folder(folder)
    if folder in OTHER_SAMPLES:
        return f"responses of the {part} policy"
    return STAGES[kind].titles.get(phase, folder) if kind in STAGES else folder


def stage_order(folder: str) -> tuple[int, int, int, str]:
    """Sort key that puts folders in the order in which a run fills them."""
    phase, kind, part = split_folder(folder)
    names = list(STAGES)
    order = names.index(kind) if kind in STAGES else len(names)
    number = int(part) if part.isdecimal() else 0
    if kind in STAGES and STAGES[kind].interleaved:
        interleaved = [name for name in names if STAGES[name].interleaved]
        number = len(interleaved) * number + interleaved.index(kind)
        order = names.index(interleaved[0])
    if part in POLICIES:
        number = POLICIES.index(part)
    return (PHASES.index(phase) if phase in PHASES else len(PHASES), order, number, folder)


def stage_folders(root: Path, phase: str = "", kind: str = "") -> list[str]:
    """Folders of a run that have a manifest, in order.

    Args:
        phase: only folders of this phase; empty for all.
        kind: only folders of this kind of stage; empty for all.
    """
    # Folder by folder: a pattern for all shards at once would keep the path of each.
    paths = (path for path in root.glob("*/**") if any(path.glob("shard-*.json")))
    folders = {path.relative_to(root).as_posix() for path in paths}
    return sorted(
        (
            name
            for name in folders
            if phase in ("", split_folder(name)[0]) and kind in ("", split_folder(name)[1])
        ),
        key=stage_order,
    )


INITIALS = stage_folder(SUPERVISED, SAMPLE)
SAMPLES = stage_folder(PREFERENCE, SAMPLE)
LABELS = stage_folder(PREFERENCE, JUDGE)
POOLED = stage_folder(PREFERENCE, POOL)
PAIRS = stage_folder(PREFERENCE, PAIR)
OTHER_SAMPLES = tuple(stage_folder(PREFERENCE, SAMPLE, name) for name in OTHER_POLICIES)
