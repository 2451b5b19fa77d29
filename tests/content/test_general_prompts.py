"""What ships for real models: prompts/sets/general.jsonl and constitutions/open_assistant.yaml.

A prompt has exactly one kind (ordinary, edge, adversarial, lookalike), the tag `multi_turn` when
it has more than one user turn, and topic tags.
"""

import json
import re
from collections import Counter, defaultdict
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import Any

from pipeline.constitution import Constitution, load_constitution

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "prompts" / "sets" / "general.jsonl"
HELDOUT = ROOT / "prompts" / "sets" / "general_heldout.jsonl"
CONSTITUTION = ROOT / "constitutions" / "open_assistant.yaml"

KINDS = {"ordinary": 60, "edge": 35, "adversarial": 35, "lookalike": 30}
"""Fewest prompts of each kind."""
MIN_PROMPTS = 180
MIN_MULTI_TURN = 25
MAX_LINE = 2_000
MIN_PRINCIPLES = 16
TAGS = {
    "safety", "privacy", "fairness", "honesty", "helpfulness", "harmlessness", "tone",
    "concision", "autonomy",
}  # fmt: skip


def _lines(path: Path = PROMPTS) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _entries(path: Path = PROMPTS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(path)]


def _messages(entry: dict[str, Any]) -> list[dict[str, str]]:
    if "prompt" in entry:
        return [{"role": "user", "content": entry["prompt"]}]
    messages: list[dict[str, str]] = entry["messages"]
    return messages


def _bare(text: str) -> str:
    """Lower case, without punctuation and repeated spaces."""
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())


def _constitution() -> Constitution:
    return load_constitution(CONSTITUTION)


def test_every_line_is_a_prompt() -> None:
    for number, line in enumerate(_lines(), start=1):
        assert len(line) <= MAX_LINE, f"line {number} is too long"
        entry = json.loads(line)
        assert set(entry) in ({"prompt", "tags"}, {"messages", "tags"}), f"line {number}"


def test_roles_alternate_and_end_with_user() -> None:
    for entry in _entries():
        messages = _messages(entry)
        roles = [message["role"] for message in messages]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))], messages
        assert roles[-1] == "user", messages
        assert all(set(message) == {"role", "content"} for message in messages)
        assert all(message["content"].strip() == message["content"] != "" for message in messages)


def test_no_user_turn_repeats() -> None:
    turns = [_bare(m["content"]) for e in _entries() for m in _messages(e) if m["role"] == "user"]
    assert [turn for turn, count in Counter(turns).items() if count > 1] == []


def test_no_two_prompts_are_variants() -> None:
    texts = [_bare(_messages(entry)[-1]["content"]).split() for entry in _entries()]
    for one, other in combinations(texts, 2):
        # Shared word sequences: a filled-in template shows as a high ratio.
        matcher = SequenceMatcher(None, one, other, autojunk=False)
        if matcher.real_quick_ratio() > 0.6 and matcher.quick_ratio() > 0.6:
            assert matcher.ratio() <= 0.6, (" ".join(one), " ".join(other))


def test_each_prompt_has_one_kind_and_a_topic() -> None:
    for entry in _entries():
        tags = entry["tags"]
        assert len(set(tags)) == len(tags), tags
        assert len(KINDS.keys() & set(tags)) == 1, entry
        assert set(tags) - KINDS.keys() - {"multi_turn"}, entry
        assert all(re.fullmatch(r"[a-z_]+", tag) for tag in tags), tags


def test_multi_turn_tag_tells_the_truth() -> None:
    for entry in _entries():
        num_user_turns = sum(message["role"] == "user" for message in _messages(entry))
        assert ("multi_turn" in entry["tags"]) == (num_user_turns > 1), entry
        assert num_user_turns <= 5


def test_kinds_reach_their_numbers() -> None:
    entries = _entries()
    single_turn = Counter(
        tag for entry in entries if "multi_turn" not in entry["tags"] for tag in entry["tags"]
    )
    assert len(entries) >= MIN_PROMPTS
    assert {kind: single_turn[kind] for kind in KINDS if single_turn[kind] < KINDS[kind]} == {}
    assert sum("multi_turn" in entry["tags"] for entry in entries) >= MIN_MULTI_TURN


def test_first_lines_show_every_kind() -> None:
    """A run that takes the first 30 prompts gets a cross-section and not one kind only."""
    head = {tag for entry in _entries()[:30] for tag in entry["tags"]}
    assert head >= {*KINDS, "multi_turn"}


def test_heldout_prompts_are_of_the_same_kinds_and_new() -> None:
    known = [_bare(_messages(entry)[-1]["content"]).split() for entry in _entries()]
    entries = _entries(HELDOUT)
    kinds = Counter(tag for entry in entries for tag in entry["tags"])
    assert all(kinds[kind] >= 8 for kind in KINDS) and kinds["multi_turn"] >= 6
    for entry in entries:
        assert len(KINDS.keys() & set(entry["tags"])) == 1, entry
        assert ("multi_turn" in entry["tags"]) == (len(_messages(entry)) > 1), entry
        assert _messages(entry)[-1]["role"] == "user"
        text = _bare(_messages(entry)[-1]["content"]).split()
        for other in known:
            matcher = SequenceMatcher(None, text, other, autojunk=False)
            assert matcher.real_quick_ratio() <= 0.6 or matcher.ratio() <= 0.6, (text, other)


def test_open_assistant_has_enough_principles() -> None:
    constitution = _constitution()
    ids = [principle.id for principle in constitution.principles]
    assert len(ids) >= MIN_PRINCIPLES
    assert len(set(ids)) == len(ids)


def test_each_request_asks_its_own_thing() -> None:
    principles = _constitution().principles
    for kind in ("critique_request", "revision_request", "comparison_request"):
        texts = [_bare(getattr(principle, kind)) for principle in principles]
        assert len(set(texts)) == len(texts), kind


def test_comparisons_ask_which_response() -> None:
    for principle in _constitution().principles:
        request = principle.comparison_request
        assert request.endswith("?") and request.count("?") == 1, principle.id
        assert "which response" in request.lower(), principle.id


def test_critiques_allow_a_clean_response() -> None:
    """A critique that may not say "nothing to fix" invents a fault."""
    for principle in _constitution().principles:
        last = re.split(r"[.?] ", principle.critique_request)[-1].lower()
        assert re.search(r"\b(say|state)\b", last), principle.id
        assert re.search(r"\b(if|or)\b", last), principle.id


def test_revisions_ask_for_the_text_alone() -> None:
    """Talk about the rewriting would become a training target."""
    for principle in _constitution().principles:
        last = re.split(r"[.?] ", principle.revision_request)[-1].lower()
        assert re.search(r"\b(only|alone|nothing|no|itself)\b|start with|begin directly", last), (
            principle.id
        )


def test_tags_come_from_the_vocabulary() -> None:
    principles = _constitution().principles
    used = {tag for principle in principles for tag in principle.tags}
    assert used == TAGS
    assert all(principle.tags for principle in principles)


def test_safety_honesty_and_help_are_drawn() -> None:
    """No family has less than a fifth of the draws, and helpfulness is not outweighed by safety."""
    shares: dict[str, float] = defaultdict(float)
    principles = _constitution().principles
    total = sum(principle.weight for principle in principles)
    for principle in principles:
        shares[principle.id.split("-")[0]] += principle.weight / total
    harm = shares["safety"] + shares["privacy"] + shares["fairness"]
    assert shares["honesty"] >= 0.2
    assert shares["help"] >= harm >= 0.2
