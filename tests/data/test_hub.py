"""Pushes to the Hub, against a server on loopback that speaks the part of its API and can fail."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.constitution import load_constitution
from pipeline.data.export import export_preference
from pipeline.store import RunDir
from tests.cli.commands import Rlaif, rlaif
from tests.data.loopback import serve_json
from tests.judge_eval.command_runs import assert_one_line
from tests.run.builders import CONFIG, whole_run

__all__ = ["rlaif"]

# The library's own way of sending a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
TOKEN = "hf_test0123456789"
REPO = "org/pairs"


class Hub:
    """One repository: commits, large files by hash, and what is to fail."""

    def __init__(self) -> None:
        self.url = ""
        self.created: list[dict[str, Any]] = []
        self.large: dict[str, bytes] = {}
        self.sent: list[str] = []
        """Hashes of the large files, each time that one was sent."""
        self.commits: list[dict[str, Any]] = []
        self.fail: dict[str, int] = {}
        """Status of the answer, once, to a request whose path has this text."""
        self.head_moves = False

    @property
    def head(self) -> str:
        return f"{len(self.commits):040x}"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        for part in [part for part in self.fail if part in path]:
            return self.fail.pop(part), {"error": "the server had an error"}
        if path.startswith("/large/"):
            self.sent.append(path[7:])
            self.large[path[7:]] = body
            return 200, {}
        if headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, {"error": f"Invalid credentials: {headers['Authorization']}"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return (409 if len(self.created) > 1 else 200), {"url": f"{self.url}/datasets/{REPO}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            return 200, {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": modes[file["path"].endswith(".parquet")],
                        "shouldIgnore": False,
                    }
                    for file in files
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for each in objects:
                if each["oid"] not in self.large:
                    each["actions"] = {"upload": {"href": f"{self.url}/large/{each['oid']}"}}
            return 200, {"transfer": "basic", "objects": objects}
        if path.endswith("/commit/main"):
            return self._commit([json.loads(line) for line in body.splitlines()])
        parent = self.head
        if self.head_moves:
            self.commits.append({})
        return 200, {"id": REPO, "sha": parent, "siblings": []}

    def _commit(self, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        (header,) = (line["value"] for line in lines if line["key"] == "header")
        if header["parentCommit"] != self.head:
            return 412, {"error": "A commit has happened since. Please refresh and try again."}
        files = {line["value"]["path"]: line["value"] for line in lines if line["key"] != "header"}
        self.commits.append({"summary": header["summary"], "files": files})
        url = f"{self.url}/datasets/{REPO}/commit/{self.head}"
        return 200, {"success": True, "commitOid": self.head, "commitUrl": url}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    service = Hub()
    with serve_json(service.answer) as address:
        service.url = address
        monkeypatch.setenv("HF_ENDPOINT", service.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield service


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = asyncio.run(whole_run(tmp_path_factory.mktemp("hub") / "runs/one"))
    export_preference(run, CONFIG, load_constitution(run.constitution))
    return run


def test_one_commit_has_the_whole_data_set(
    hub: Hub, run: RunDir, rlaif: Rlaif, tmp_path: Path
) -> None:
    """And a second push, after another, names that as its parent and sends no large file again."""
    ended = rlaif("export", run.root, "--push-to", REPO)
    assert ended.code == 0, ended.err
    assert ended.out.endswith(f"pushed: {hub.url}/datasets/{REPO}/commit/{hub.head}\n")
    assert hub.created[0]["type"] == "dataset" and hub.created[0]["visibility"] == "private"
    (commit,) = hub.commits
    assert commit["summary"] == f"Data set of run {run.run_id}"
    assert set(commit["files"]) == {path.name for path in run.dataset.iterdir()}
    card = base64.b64decode(commit["files"]["README.md"]["content"])
    assert card == (run.dataset / "README.md").read_bytes()
    large = hub.large[commit["files"]["preference.parquet"]["oid"]]
    assert large == (run.dataset / "preference.parquet").read_bytes()
    assert rlaif("export", run.root, "--push-to", REPO).code == 0
    assert len(hub.commits) == 2 and len(hub.sent) == len(set(hub.sent))
    assert not any(TOKEN in path.read_text("latin-1") for path in tmp_path.rglob("*.*"))


def test_error_after_the_upload_loses_nothing(
    hub: Hub, run: RunDir, rlaif: Rlaif, tmp_path: Path
) -> None:
    hub.fail["/large/"] = 403
    ended = rlaif("export", run.root, "--push-to", REPO)
    assert_one_line(ended, "parquet' to the Hub. Nothing .* same command again", tmp_path)
    hub.fail["/commit/main"] = 500
    ended = rlaif("export", run.root, "--push-to", REPO)
    assert_one_line(ended, "answered 500: the server had an error; .* same command again", tmp_path)
    assert hub.large and not hub.commits
    assert rlaif("export", run.root, "--push-to", REPO).code == 0
    assert len(hub.commits) == 1 and len(hub.sent) == len(set(hub.sent))


def test_push_after_another_is_refused(hub: Hub, run: RunDir, rlaif: Rlaif, tmp_path: Path) -> None:
    hub.head_moves = True
    ended = rlaif("export", run.root, "--push-to", REPO)
    assert_one_line(ended, "answered 412: .*another push came first", tmp_path)
    assert hub.commits == [{}]


def test_token_and_network_are_one_line(
    hub: Hub, run: RunDir, rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong987654")
    ended = rlaif("export", run.root, "--push-to", REPO)
    assert_one_line(ended, "answered 401: .*HF_TOKEN", tmp_path)
    assert "hf_wrong" not in ended.err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ended = rlaif("export", run.root, "--push-to", REPO)
    assert_one_line(ended, "cannot be reached .*same command again", tmp_path)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    ended = rlaif("export", run.root, "--push-to", REPO)
    assert_one_line(ended, "there is no token of the Hub; set HF_TOKEN", tmp_path)


def test_what_should_not_be_pushed_is_refused(hub: Hub, rlaif: Rlaif, tmp_path: Path) -> None:
    run = asyncio.run(whole_run(tmp_path / "runs/two"))
    push = ("export", run.root, "--push-to", REPO)
    assert_one_line(rlaif(*push), "has no preference set to push", tmp_path)
    export_preference(run, CONFIG, load_constitution(run.constitution))
    assert_one_line(rlaif(*push, "--format", "kto"), "--format is kto; leave it out", tmp_path)
    assert_one_line(rlaif(*push, "--out", "x"), "give --out FILE or --push-to REPO", tmp_path)
    assert_one_line(rlaif("export", run.root, "--push-to", "a/b/c"), "a/b/c cannot", tmp_path)
    with (run.dataset / "preference.parquet").open("ab") as stream:
        stream.write(b"x")
    assert_one_line(rlaif(*push), "is missing or damaged", tmp_path)
    run.update_info(status="audit failed")
    ended = rlaif(*push)
    assert ended.code == 3 and "failed their audit, so nothing is pushed" in ended.err
    assert not hub.created
