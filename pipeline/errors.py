"""Everything that can go wrong, named after the boundary that was crossed.

PipelineError
  UserError              the person can fix it: one line, exit code 2, nothing written
    ConfigError          recipe or constitution
    TemplateError        a Jinja file in prompts/
    DataError            a prompt set or a label file
    StoreError           the run folder: in use, damaged, disk full
    MachineError         the machine: no CUDA, port taken, model folder missing
  RunStoppedError        too many rows failed, or an endpoint is gone: all that succeeded is kept
    BudgetSpentError     the budget of the recipe is spent: all is kept
  AuditError             the labels did not pass their thresholds: exit code 3, data kept
  EngineError            one call failed; the runner retries, then records the row
    FinalCallError       a repetition cannot help: recorded at once
      PromptTooLongError   this row can never fit the context
      NoReplyError         the model sent no text, or nothing but a thought
      CheckError           a check raised: its row is failed, with this reason
    EngineDeadError      the engine is gone; every pending call fails
  VerdictError           a model's reply cannot be read as a verdict or a rating
  TrainingError          the training subprocess ended badly

A message has three parts: what was found, what was needed, what to do.
"""

import unicodedata

_SHOWN_FORMATS = "\u200c\u200d"
"""Joiners, which emoji and several scripts need; other format characters reorder or hide text."""


def printable(text: str) -> str:
    """`text` for a terminal: what would control it, reorder or hide text is shown as an escape."""
    return "".join(
        char
        if char in "\n\t"
        or char in _SHOWN_FORMATS
        or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_AUDIT = 3


class PipelineError(Exception):
    """Root of all errors that this package raises on purpose."""

    exit_code: int = EXIT_BUG


class UserError(PipelineError):
    """The person can fix it; the CLI prints one line and exits with code 2."""

    exit_code = EXIT_USER


class ConfigError(UserError):
    """A recipe, a constitution or a file that it names is wrong."""


class TemplateError(UserError):
    """A template does not parse, or names a variable that its stage does not pass."""


class DataError(UserError):
    """A prompt set or a label file is wrong; the message names file and line."""


class StoreError(UserError):
    """The run folder cannot be used: locked, damaged, or the disk is full."""


class MachineError(UserError):
    """The machine lacks what the recipe asks for."""


class RunStoppedError(PipelineError):
    """Too many rows failed, or an endpoint answers nothing any more.

    All that succeeded is on disk, and `rlaif resume` continues.
    """


class BudgetSpentError(RunStoppedError):
    """The run has spent what its recipe allows; a larger budget continues it."""


class AuditError(PipelineError):
    """Labels failed their audit: export is blocked and the data is kept."""

    exit_code = EXIT_AUDIT


class EngineError(PipelineError):
    """A model call failed for a reason that may pass; the runner retries it."""


class FinalCallError(EngineError):
    """A call that was repeated often enough, or for which a repetition cannot help."""


class NoReplyError(FinalCallError):
    """The model sent no text, or nothing but a thought: an empty reply is no reply."""


class PromptTooLongError(FinalCallError):
    """The prompt does not fit the context; a retry cannot help."""


class CheckError(FinalCallError):
    """A check of a principle raised for a response, so that nothing is decided."""


class EngineDeadError(EngineError):
    """The engine process ended; open a new one."""


class VerdictError(PipelineError):
    """A reply cannot be read as a verdict or a rating: recorded as unparsed, never scored."""


class TrainingError(PipelineError):
    """The training subprocess failed; the message carries the end of its log."""
