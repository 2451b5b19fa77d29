"""Starting a run: check everything that a person can get wrong, then make its folder.

In:  a recipe
Out: outputs/runs/<run_id>/ with copies of the recipe, the constitution, the templates and the
     labeling files, their hashes and the environment; or one UserError, and nothing is written
"""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, load_config
from pipeline.config.engines import AnyEngine
from pipeline.config.paths import PROJECT_ROOT, path_problem, resolve_path, shown_path
from pipeline.config.recipe import JUDGE, REWARDS, SECOND_JUDGE, read_recipe
from pipeline.constitution import Constitution, load_constitution
from pipeline.data.heldout import check_prompts
from pipeline.engines import ENGINES, ask_engine, check_engine
from pipeline.engines.base import Use
from pipeline.engines.lazy import unopened_engine
from pipeline.engines.template_trial import Roles, TemplateUse, try_template, turns
from pipeline.errors import ConfigError, StoreError, UserError
from pipeline.evaluation.gate import check_gate, unprobed_trainings
from pipeline.evaluation.oracle import find_oracle
from pipeline.ids import canonical_json, file_hash
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.inputs import LabelingInputs
from pipeline.labeling.judge_stage import make_judge
from pipeline.labeling.known_labels import MAKE_IT
from pipeline.labeling.labelers import labeler_of
from pipeline.prompting.templates import PromptTemplate
from pipeline.run.context import relative_to_project, resolved_engine
from pipeline.run.environment import record_environment
from pipeline.run.files import RunFiles, copied_paths, copy_files, load_files
from pipeline.run.webhook import reporting, webhook_address
from pipeline.sources.files import check_label_sources
from pipeline.store import RunDir, RunLock, new_run_id
from pipeline.store.files import write_text
from pipeline.store.layout import check_folder_name, run_beside
from pipeline.store.remote import mirror, mirror_of
from pipeline.store.spending import timed
from pipeline.training.launch import check_trackers, prove_model
from pipeline.workers.cluster import check_workers


def runs_root() -> Path:
    """Folder of all runs: `RLAIF_OUTPUTS`/runs, else outputs/runs below the project root. For a URL
    this machine's working copy of it, with what shows each run in a list.

    Raises:
        StoreError: the store of this URL does not answer.
    """
    outputs = os.environ.get("RLAIF_OUTPUTS") or PROJECT_ROOT / "outputs"
    if str(outputs)[0] in "/.~" or ":/" not in str(outputs):
        # Arrow would read a path that begins with `~` as one below the home folder; nothing else
        # does.
        return Path(outputs).absolute() / "runs"
    store = mirror(str(outputs))
    store.pull_heads()
    return store.root


def review_folder(run: RunDir) -> Path:
    """Folder of the labels that people give to pairs of a run."""
    return runs_root().parent / "review" / run.run_id


REPLIES: Use = "replies"


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe that passed every check."""

    path: Path
    config: RunConfig
    constitution: Constitution
    text: str
    """What is copied into the run folder: the file as written, or with the overrides in it."""
    facts: list[tuple[str, str]]
    """What the run will use, for people: pairs of a subject, such as `prompts`, and one line."""


def check_recipe(
    recipe: Path, *, overrides: Sequence[str] = (), offline: bool = False
) -> CheckedRecipe:
    """Read a recipe and check it with every file, model and endpoint that it names.

    Args:
        overrides: values to replace, each `key.path=value`.
        offline: no endpoint is asked whether it answers.

    Raises:
        UserError: the first thing to correct.
    """
    path = resolve_path(recipe)
    config, text = read_recipe(path, overrides)
    constitution = load_constitution(resolve_path(config.constitution))
    files = load_files(config, constitution)
    counts = check_prompts(config.prompts.train, config.prompts.heldout)
    rules, unprobed = config.evaluation, unprobed_trainings(config)
    check_gate(rules.gate, constitution, rules.oracle, counts.tags, unprobed)
    check_rounds(config, counts.train)
    for section in (config.supervised.train, config.preference.train):
        check_trackers(section)
    facts = [
        ("recipe", f"{config.name}: {config.description}".rstrip(": ")),
        ("constitution", _describe(constitution, config) + _unshown(constitution, files)),
        ("prompts", f"{counts.train} to train on, {counts.heldout} held out"),
        *(("labels", line) for line in check_label_sources(config)),
    ]
    for role, engine in config.engines:
        settings = resolved_engine(engine)
        check_engine(settings)
        if settings.trainable:
            model = ENGINES[settings.type].starting_model(settings)
            for use in _template_uses(role, config, counts.shapes):
                try_template(model, use)
            if role == "policy" and (config.supervised.train or config.preference.train):
                repaired = prove_model(model.folder)
                facts += [("policy", repaired)] if repaired else []
        facts.append((role, f"{engine.type} {getattr(engine, 'model', '')}".strip()))
    if config.evaluation.oracle is not None:
        find_oracle(config.evaluation.oracle)
    check_judges(config, constitution, files)
    if (store := mirror_of(runs_root())) is not None:
        store.check()
        facts.append(("store", store.url))
    if config.execution.workers.kind == "ray":
        named = [resolved_engine(engine) for _, engine in config.engines]
        line = check_workers(config.execution.workers, named, offline=offline)
        facts.append(("workers", line))
    if config.webhook_env:
        webhook_address(config.webhook_env)
    if not offline:
        facts += [("endpoint", line) for line in ask_endpoints(config)]
    return CheckedRecipe(path, config, constitution, text, facts)


def ask_endpoints(config: RunConfig, *, judges_only: bool = False) -> list[str]:
    """What each server that a recipe names answers to one small question, a line each.

    Args:
        judges_only: no policy will be asked for anything.

    Raises:
        ConfigError: one cannot be used for what the recipe wants of it.
    """
    scored: Use = "texts" if labeler_of(config.preference).uses_follow_ups else "options"
    uses: dict[str, Use] = {JUDGE: scored, SECOND_JUDGE: "options"}
    questions: dict[str, tuple[AnyEngine, Use]] = {}
    # A judge's question also shows that the server replies.
    for role, engine in sorted(config.engines, key=lambda each: each[0] not in uses):
        if role == JUDGE or not judges_only:
            settings = resolved_engine(engine)
            key = canonical_json(settings.model_dump(mode="json"))
            questions.setdefault(key, (settings, uses.get(role, REPLIES)))
    answers = (ask_engine(engine, use) for engine, use in questions.values())
    return [answer for answer in answers if answer is not None]


def _describe(constitution: Constitution, config: RunConfig) -> str:
    text = f"{constitution.name}, {len(constitution.principles)} principles"
    if not constitution.checked:
        return text
    text += f", {len(constitution.checked)} of them decided by a check"
    preference = config.preference
    if preference.enabled and labeler_of(preference).principles(preference) == "none":
        text += f"; the labeler '{preference.labeler}' uses no principle, so no check makes a label"
    return text


def _unshown(constitution: Constitution, files: RunFiles) -> str:
    """The templates that do not show the rationales of a constitution; empty where all do."""
    if not any(principle.rationale for principle in constitution.principles):
        return ""
    named: dict[str, PromptTemplate | None] = vars(files.templates)
    silent = [name for name, template in named.items() if template and not template.shows_reasons]
    return f"; no place for its rationales in the template of {', '.join(silent)}" if silent else ""


def _template_uses(role: str, config: RunConfig, prompts: frozenset[Roles]) -> list[TemplateUse]:
    """What the run does with a model; only the first policy is trained."""
    if role == REWARDS:
        return [TemplateUse(prompts, reads_reply=True)]
    if role not in (JUDGE, SECOND_JUDGE):
        trains = role == "policy" and (config.supervised.train or config.preference.train)
        if trains and config.preference.train and config.preference.train.directs:
            prompts |= {("system", *roles) for roles in prompts if roles[0] != "system"}
        chain = 2 if config.supervised.enabled and config.supervised.revise.rounds else 0
        thoughts = bool(config.supervised.train and config.supervised.sft_thoughts)
        learned = TemplateUse(prompts, learns=bool(trains), learns_thoughts=thoughts)
        return [learned, TemplateUse(turns(prompts, chain))]
    labeler = labeler_of(config.preference)
    if role == JUDGE and labeler.uses_follow_ups:
        return [TemplateUse(turns(prompts, 1))]
    section = config.preference.judge
    rounds = section.num_exemplars + (section.chain_of_thought is not None)
    prefix = section.reply_prefix
    if role == JUDGE and labeler.uses_score_template:
        rounds, prefix = 0, config.preference.score.reply_prefix
    return [TemplateUse(turns({("user",)}, rounds), scored_after=prefix)]


def check_rounds(config: RunConfig, num_prompts: int) -> None:
    """Raises ConfigError when a round of the recipe would have no new prompt.

    Args:
        num_prompts: different prompts in the recipe's files.
    """
    limit = config.prompts.limit
    if config.rounds == 1 or (limit and limit * (config.rounds - 1) < num_prompts):
        return
    taken = f"prompts.limit is {limit}" if limit else "without prompts.limit the first takes all"
    most = num_prompts // config.rounds
    remedy = f"set prompts.limit to {most} or less" if most else "add prompts"
    raise ConfigError(
        f"rounds: {config.rounds} needs new prompts in each round, but the files have "
        f"{num_prompts} and {taken}; {remedy}, or lower `rounds`"
    )


def check_judges(config: RunConfig, constitution: Constitution, files: RunFiles) -> None:
    """Compare calibration and known labels with the weights and the way of labeling of each model
    that labels.

    No model is loaded. The fingerprint of an endpoint is compared later, when it is connected.

    Raises:
        ConfigError: they are of another judge or another way of labeling.
    """
    if files.labeling.calibration is None and files.labeling.known_labels is None:
        return
    inputs = LabelingInputs(
        "", config.seed, config.preference, constitution, files.templates, files.labeling
    )
    known, judges = files.labeling.known_labels, config.label_engines
    labeler = labeler_of(config.preference)
    if known is not None and len(known.judges) != len(judges):
        raise ConfigError(
            f"the known labels of pair.known_labels come from {len(known.judges)} judges, but this "
            f"recipe has {len(judges)}, whose mean is another label; {MAKE_IT}"
        )
    for number, settings in enumerate(judges):
        engine = unopened_engine(resolved_engine(settings))
        if engine is not None:
            labeler.stages(inputs, engine, Compared("samples"), number)
    judge = unopened_engine(resolved_engine(config.judge_engine))
    if judge is not None and not labeler.has_orders:
        # It does not label, but its calibration is used where policies are compared.
        make_judge(inputs, judge)


def begin_run(
    recipe: str,
    run_id: str | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    prompts: int | None = None,
) -> RunDir:
    """A new run of `recipe`, or with `resume` the run called `run_id`.

    Args:
        overrides: values to replace in the recipe of a new run.
        prompts: replaces `prompts.limit`.

    Raises:
        UserError: the recipe is wrong, the id is taken, or there is no run to resume.
    """
    overrides = [*overrides, *([f"prompts.limit={prompts}"] if prompts else [])]
    if not resume:
        return start_run(check_recipe(Path(recipe), overrides=overrides), run_id=run_id)
    if run_id is None:
        raise StoreError("resuming a run needs its run id; `rlaif runs` lists them")
    return change_budget(find_run(run_id), overrides)


def change_budget(run: RunDir, overrides: Sequence[str]) -> RunDir:
    """The run, with another budget in its copy of the recipe: the one section that a resumed run
    may change, since it changes no row.

    Raises:
        ConfigError: an override is of another setting, or its value is wrong.
        StoreError: a copy was edited, or another process works in the run.
    """
    for each in overrides:
        key = each.partition("=")[0]
        if key.split(".")[0] != "budget":
            raise ConfigError(
                "a resumed run keeps the recipe that it began with, except for its budget; leave "
                f"out {key[:120]}, or start a new run"
            )
    if overrides:
        _refuse_edits(run)
        _, text = read_recipe(run.recipe, overrides)
        with RunLock(run.root):
            write_text(run.recipe, text)
            files = {**run.info().get("files", {}), run.recipe.name: file_hash(run.recipe)}
            run.update_info(files=files)
    return run


def start_run(
    recipe: Path | CheckedRecipe, *, run_id: str | None = None, runs_root_folder: Path | None = None
) -> RunDir:
    """Make a run folder with copies of the recipe and of the files that it names.

    Args:
        recipe: the path is checked first; a checked recipe is not checked again.
        run_id: name of the folder; by default the recipe's name and the time.
        runs_root_folder: folder of all runs; by default `runs_root()`.

    Raises:
        UserError: see `check_recipe`; nothing is written.
        StoreError: there is already a run with that id, or the id is not a folder's name.
    """
    if run_id is not None:
        check_folder_name(run_id, "the run id")
    checked = check_recipe(recipe) if isinstance(recipe, Path) else recipe
    root = (runs_root_folder or runs_root()) / (run_id or new_run_id(checked.config.name))
    if root.exists():
        raise StoreError(f"run {root.name} exists already; `rlaif resume {root.name}` continues it")

    def fill(run: RunDir) -> None:
        # The recipe is copied as written, with its comments: people will read it again.
        write_text(run.recipe, checked.text)
        copies = [run.recipe, *copy_files(run, checked.config)]
        write_run_info(
            run,
            root.name,
            copies,
            name=checked.config.name,
            recipe=relative_to_project(checked.path),
        )

    return make_run_folder(root, fill)


def make_run_folder(root: Path, fill: Callable[[RunDir], None]) -> RunDir:
    """A run folder with the files that `fill` writes; it appears whole or not at all.

    Raises:
        StoreError: the disk is full or not writable.
    """
    aside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        fill(RunDir(aside))
        aside.rename(root)
        if (store := mirror_of(root)) is not None:
            store.push(root)
    except (OSError, StoreError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(reason, OSError):
            raise
        raise StoreError(
            f"cannot make the run folder {root} ({reason.strerror}); free space or check "
            "permissions, then repeat the command"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return RunDir(root)


def write_run_info(run: RunDir, run_id: str, copies: Sequence[Path], **entries: Any) -> None:
    """Write environment.json and the first run.json, with the hashes of the constitution and of
    the copies.

    Args:
        entries: further entries of run.json.
    """
    constitution = load_constitution(run.constitution)
    record_environment(run)
    run.update_info(
        run_id=run_id,
        status="started",
        constitution={
            "name": constitution.name,
            "hash": constitution.hash,
            "principles": {p.id: p.hash for p in constitution.principles},
        },
        files={str(p.relative_to(run.root)): file_hash(p) for p in copies},
        **entries,
    )


@contextmanager
def work_in(run: RunDir) -> Iterator[None]:
    """Hold a new or stopped run while it is taken on: its lock, and its environment recorded.

    Raises:
        StoreError: another process works in it, a copy of a file that decides its rows was edited,
            or the disk is full.
    """
    _refuse_edits(run)
    config = load_config(run.recipe)
    clock = timed(run) if config.budget.limits or config.prices else nullcontext()
    with RunLock(run.root), clock, reporting(run, config.webhook_env):
        record_environment(run)
        yield


def _refuse_edits(run: RunDir) -> None:
    for name, expected in run.info().get("files", {}).items():
        path = run.root / name
        if path.is_file() and file_hash(path) != expected:
            raise StoreError(
                f"{path} was changed since run {run.run_id} began, which must not be made from two "
                f"versions of it; put the first one back{_where_it_is(run, path, expected)}, or "
                f"start a new run with the changed one: {_new_run(run, path)}"
            )


def _where_it_is(run: RunDir, copy: Path, expected: str) -> str:
    """How to get the first version of an edited copy, where its original still is that."""
    originals: dict[Path, Path] = {}
    with suppress(UserError):
        originals[run.recipe] = resolve_path(Path(run.info().get("recipe") or run.recipe))
        originals |= copied_paths(run, load_config(run.recipe))
    original = originals.get(copy)
    if original is None or not original.is_file() or file_hash(original) != expected:
        return " from a copy of yours"
    return f" (`{shlex.join(['cp', str(original), str(copy)])}`)"


def _new_run(run: RunDir, copy: Path) -> str:
    if copy == run.recipe:
        return f"`{shlex.join(['rlaif', 'run', str(copy)])}`"
    return "`rlaif run` with a recipe that names it"


def find_run(name: str | Path, runs_root_folder: Path | None = None) -> RunDir:
    """A run by folder or by id. Raises StoreError when there is none."""
    try:
        folder = Path(name)
        if (folder / "run.json").exists():
            if (store := mirror_of(folder.resolve())) is not None:
                store.pull(folder.resolve())
            return RunDir(folder.resolve())
        return run_beside(runs_root_folder or runs_root(), str(name)).require()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"run {shown_path(name)} cannot be a folder ({path_problem(error)}); list the runs "
            "with `rlaif runs`"
        ) from None
