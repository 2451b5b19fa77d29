"""A gate that waits for people, under Prefect."""

from tests.flows.conftest import Flows


def test_flow_run_of_a_deployment_is_suspended_until_people_have_labeled(flows: Flows) -> None:
    """One that nothing would start again ends with a candidate. A person who resumes too early has
    to resume once more.
    """
    alone, waiting = ["Completed", "candidate"], ["Suspended", "Suspended", "Completed", "promoted"]
    assert flows.ends["people"]["states"] == [*alone, *waiting]
