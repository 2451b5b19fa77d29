"""Labeled comparisons without people: those of a run's own texts whose truth a check knows.

In:  a run with texts, and the principles of its constitution that a program decides
Out: an Imported of LabeledRows, each with the id of its principle, and these principles

Of each prompt and principle, one text that holds it is compared with one that does not, both drawn
by hash. The judge is asked under that principle, though a run would not ask it: what it prefers is
right or wrong without anybody's opinion.

Does not: tell how right the judge is under principles that only it can decide.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.checks import run_check
from pipeline.constitution import Principle, load_constitution
from pipeline.errors import CheckError, DataError
from pipeline.ids import content_hash, row_id, uniform
from pipeline.labeling.comparisons import Candidate, candidate
from pipeline.records import PromptRow
from pipeline.soft_labels import margin
from pipeline.sources.rows import Imported, LabeledRow, SourceRecord, response_id
from pipeline.store import RunDir
from pipeline.store.shards import stage_manifests, stage_rows
from pipeline.store.stage_names import PREFERENCE, PROMPTS, SAMPLE, SUPERVISED, stage_folders

FOLDERS = ((SUPERVISED, SAMPLE), (PREFERENCE, SAMPLE))
"""Responses as policies wrote them; revisions were made to hold the principle."""


@dataclass(frozen=True)
class CheckedComparisons:
    """Comparisons of a run, and the principle under which each is decided."""

    imported: Imported
    principles: Mapping[str, Principle]
    """By row id of a comparison."""


def checked_comparisons(run: RunDir) -> CheckedComparisons:
    """All comparisons of a run that a check decides, at most one for each prompt and principle.

    Raises:
        DataError: the run has no principle with a check, or no texts of which exactly one holds it.
        StoreError: it is not a run, or a shard is damaged.
    """
    constitution = load_constitution(run.require().constitution)
    if not constitution.checked:
        raise DataError(
            f"no principle of run {run.run_id} has a check, so nothing is known about its texts; "
            "name a run whose constitution has some, or give a file of labeled pairs"
        )
    texts: dict[str, list[Candidate]] = defaultdict(list)
    for phase, stage in FOLDERS:
        for folder in stage_folders(run.root, phase, stage):
            for row in stage_rows(run.root, folder):
                if row.status == "ok" and row.response.strip():
                    texts[row.prompt_id].append(candidate(row))
    rows: list[LabeledRow] = []
    principles: dict[str, Principle] = {}
    for number, prompt in enumerate(stage_rows(run.root, PROMPTS), start=1):
        for principle in constitution.checked:
            for row in _comparison(run, prompt, number, principle, texts[prompt.row_id]):
                rows.append(row)
                principles[row.row_id] = principle
    if not rows:
        made = "texts" if stage_manifests(run.root, PROMPTS) else "prompts"
        raise DataError(
            f"run {run.run_id} has no {made} of which one holds a checked principle and another "
            f"does not; `rlaif resume {run.run_id}` finishes it, or sample more per prompt"
        )
    record = SourceRecord(
        name=run.run_id,
        kind="check",
        path=str(run.root),
        sha256=content_hash([row.row_id for row in rows]),
        label_accuracy=1.0,
        num_rows=len(rows),
        num_ok=len(rows),
        num_dropped=0,
    )
    return CheckedComparisons(Imported(tuple(rows), record), principles)


def _comparison(
    run: RunDir, prompt: PromptRow, number: int, principle: Principle, texts: list[Candidate]
) -> Iterator[LabeledRow]:
    assert principle.check is not None
    sides: dict[bool, list[Candidate]] = {True: [], False: []}
    for side in texts:
        try:
            sides[run_check(principle.check, side.text, prompt.messages).passes].append(side)
        except CheckError:
            # A run fails its rows for this; here it is one text less.
            continue
    if not (sides[True] and sides[False]):
        return
    better, worse = (
        min(sides[holds], key=lambda side: uniform("checked", principle.id, side.row_id))
        for holds in (True, False)
    )
    yield LabeledRow(
        row_id=row_id("checked comparison", principle.hash, better.row_id, worse.row_id),
        prompt_id=prompt.row_id,
        comparison="imported",
        principle_id=principle.id,
        messages=prompt.messages,
        chosen=better.text,
        rejected=worse.text,
        chosen_id=response_id(prompt.row_id, better.text),
        rejected_id=response_id(prompt.row_id, worse.text),
        soft_label=1.0,
        margin=margin(1.0),
        source=run.run_id,
        source_kind="check",
        source_index=number,
        tags=(principle.id,),
    )
