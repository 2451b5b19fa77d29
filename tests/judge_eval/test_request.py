"""What may go on in the folder of one judge evaluation."""

from pathlib import Path

from pipeline.config import load_config
from pipeline.judge_eval.request import Request, identity_of
from pipeline.sources.config import ExpertSource
from pipeline.sources.importing import import_source
from tests.run.builders import write_recipe
from tests.sources.builders import write_lines


def test_every_file_of_a_source_counts(tmp_path: Path) -> None:
    """Experts' answers meet responses of a second file: other responses are other labels."""
    recipe = write_recipe(tmp_path)
    answers = write_lines(tmp_path / "answers.jsonl", {"prompt": "q", "answer": "best"})
    responses = tmp_path / "responses.jsonl"
    source = ExpertSource(name="desk", path=answers, responses=responses)

    def identity(text: str) -> str:
        write_lines(responses, {"prompt": "q", "response": text})
        imports = [import_source(source)]
        return identity_of(Request(recipe, (source,)), load_config(recipe), imports, 0)

    assert identity("one") == identity("one") != identity("two")
