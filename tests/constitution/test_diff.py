"""Changes between two versions, told apart by meaning."""

from pipeline.constitution.diff import diff_constitutions, semantic_hash
from tests.constitution.builders import BREVITY, HONESTY, KINDNESS, make_constitution

OLD = make_constitution(HONESTY, KINDNESS, BREVITY)


def test_equal_versions_differ_in_nothing() -> None:
    diff = diff_constitutions(OLD, OLD)
    assert diff.num_unchanged == 3
    assert diff.text() == "3 principles unchanged"


def test_hash_ignores_space_case_weight_and_id() -> None:
    respelled = {
        **HONESTY,
        "id": "truth",
        "weight": 3.0,
        "tags": [],
        "critique_request": "name  false statements\nin your last response.",
    }
    changed = {**HONESTY, "critique_request": "Name false claims in your last response."}
    one, two, three = make_constitution({**HONESTY}, respelled, {**changed, "id": "x"}).principles
    assert semantic_hash(one) == semantic_hash(two) != semantic_hash(three)


def test_case_inside_a_request_counts() -> None:
    shouted = {**HONESTY, "comparison_request": "Which response is MORE honest?"}
    diff = diff_constitutions(OLD, make_constitution(shouted, KINDNESS, BREVITY))
    assert [(r.principle_id, r.request) for r in diff.reworded] == [
        ("honesty", "comparison_request")
    ]


def test_respelled_principle_keeps_its_meaning() -> None:
    respelled = {**HONESTY, "comparison_request": "which response is  more honest?"}
    diff = diff_constitutions(OLD, make_constitution(respelled, KINDNESS, BREVITY))
    assert diff.reworded == ()
    assert diff.respelled == ("honesty",)


def test_added_and_removed_are_named() -> None:
    diff = diff_constitutions(
        make_constitution(HONESTY, KINDNESS), make_constitution(KINDNESS, BREVITY)
    )
    assert (diff.added, diff.removed) == (("brevity",), ("honesty",))
    assert diff.moved == ()


def test_renamed_is_not_new() -> None:
    diff = diff_constitutions(OLD, make_constitution({**HONESTY, "id": "truth"}, KINDNESS, BREVITY))
    assert [(c.before, c.after) for c in diff.renamed] == [("honesty", "truth")]
    assert (diff.added, diff.removed, diff.reworded, diff.reweighted) == ((), (), (), ())
    assert diff.num_unchanged == 2


def test_weights_show_the_share_of_draws() -> None:
    """1 of 3 before, 2 of 4 after."""
    diff = diff_constitutions(OLD, make_constitution({**HONESTY, "weight": 2}, KINDNESS, BREVITY))
    (change,) = diff.reweighted
    assert (change.before, change.after) == ("1 (33.3 % of draws)", "2 (50.0 % of draws)")


def test_fewest_moves_explain_the_order() -> None:
    """honesty, kindness, brevity -> brevity, honesty, kindness: one moved, from place 3 to 1."""
    diff = diff_constitutions(OLD, make_constitution(BREVITY, HONESTY, KINDNESS))
    assert [(c.principle_id, c.before, c.after) for c in diff.moved] == [("brevity", "3", "1")]


def test_tags_change_alone() -> None:
    diff = diff_constitutions(OLD, make_constitution({**HONESTY, "tags": []}, KINDNESS, BREVITY))
    assert [(c.before, c.after) for c in diff.retagged] == [("truth", "")]
    assert "retagged honesty: truth -> none" in diff.text()


def test_text_shows_both_wordings() -> None:
    new = {**KINDNESS, "comparison_request": "Which response is warmer?"}
    text = diff_constitutions(OLD, make_constitution(HONESTY, new, BREVITY)).text()
    assert text.splitlines() == [
        "reworded kindness, comparison_request",
        "  - Which response is kinder?",
        "  + Which response is warmer?",
        "2 principles unchanged",
    ]


def test_rationale_is_part_of_the_meaning() -> None:
    """A principle without one keeps the hash of versions before rationales."""
    reasoned = {**HONESTY, "rationale": "Trust is lost once."}
    diff = diff_constitutions(OLD, make_constitution(reasoned, KINDNESS, BREVITY))
    assert [(r.principle_id, r.request, r.before) for r in diff.reworded] == [
        ("honesty", "rationale", "")
    ]
    assert "reworded honesty, rationale\n  - none\n  + Trust is lost once." in diff.text()
    assert OLD.principles[0].hash == "6850bd6fcf3e2e8c"
    assert OLD.hash == "5095f087f2f4db02"


def test_priority_and_conflicts_are_compared_from_both_sides() -> None:
    """Naming the conflict in the other principle changes nothing."""
    one = make_constitution({**HONESTY, "priority": 2, "conflicts": ["kindness"]}, KINDNESS)
    two = make_constitution({**HONESTY, "priority": 2}, {**KINDNESS, "conflicts": ["honesty"]})
    assert diff_constitutions(one, two).text() == "2 principles unchanged"
    assert one.hash == two.hash != make_constitution(HONESTY, KINDNESS).hash
    diff = diff_constitutions(make_constitution(HONESTY, KINDNESS), one)
    assert diff.text().splitlines() == [
        "reprioritized honesty: none -> priority 2, in conflict with kindness",
        "reprioritized kindness: none -> priority 0, in conflict with honesty",
        "0 principles unchanged",
    ]
    renamed = make_constitution(
        {**HONESTY, "priority": 2, "conflicts": ["warm"]}, {**KINDNESS, "id": "warm"}
    )
    assert diff_constitutions(one, renamed).reprioritized == ()
