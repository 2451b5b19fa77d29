"""Which checks of the constitution a reply holds: exact, without a judge.

In:  the constitution, the conversation, a reply
Out: measures in [0, 1] by name: `checks_all`, and `check <id>` for each principle with a check

A reply for which a check raised has no measure of that check. It counts as holding none of them all
when it fails another one, and not at all otherwise.
"""

from pipeline.checks import run_check
from pipeline.constitution import Constitution
from pipeline.errors import CheckError
from pipeline.types import Messages

ALL = "checks_all"


def measure_name(principle_id: str) -> str:
    """Name of the measure of one principle's check."""
    return f"check {principle_id}"


def check_measures(constitution: Constitution) -> tuple[str, ...]:
    """Names of all measures; none when no principle has a check."""
    names = tuple(measure_name(p.id) for p in constitution.checked)
    return (ALL, *names) if names else ()


def observe_checks(
    constitution: Constitution, conversation: Messages, text: str
) -> dict[str, float]:
    """The measures of one reply; those that could not be decided are left out."""
    held: dict[str, float] = {}
    for principle in constitution.checked:
        assert principle.check is not None
        try:
            passes = run_check(principle.check, text, conversation).passes
        except CheckError:
            continue
        held[measure_name(principle.id)] = passes
    if held and (not all(held.values()) or len(held) == len(constitution.checked)):
        held[ALL] = all(held.values())
    return held
