"""Only the page itself reaches the review: token, Host, Origin, and texts that stay texts."""

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from pipeline.review.server import TOKEN_HEADER, ReviewServer
from tests.review.builders import labeled_run, open_review


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewServer]:
    folder = tmp_path_factory.mktemp("server")
    review, _ = open_review(labeled_run(folder / "run"), folder / "labels")
    with ReviewServer(review, "<b>run</b>") as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def post(server: ReviewServer, path: str, body: object, **headers: str) -> httpx.Response:
    address = f"http://127.0.0.1:{server.server_port}{path}"
    return httpx.post(address, json=body, headers={TOKEN_HEADER: server.token, **headers})


def test_page_has_no_data_and_forbids_all_but_its_script(server: ReviewServer) -> None:
    page = httpx.get(server.url)
    assert page.status_code == 200 and "better 1" not in page.text and server.token not in page.text
    assert "&lt;b&gt;run" in page.text and "<b>run" not in page.text
    assert "default-src 'none'" in page.text and "connect-src 'self'" in page.text
    assert "innerHTML" not in page.text
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert page.headers["Cache-Control"] == "no-store"


def test_label_is_saved_and_the_next_pair_comes(server: ReviewServer) -> None:
    state = post(server, "/next", {"reviewer": "Ada"}).json()
    body = {"reviewer": "Ada", "pair": state["pair"]["id"], "answer": "left", "seconds": 2}
    after = post(server, "/label", body)
    assert after.status_code == 200 and after.json()["done"] == state["done"] + 1
    again = post(server, "/label", body)
    assert again.status_code == 409 and "load the page again" in again.json()["error"]
    undone = post(server, "/undo", {"reviewer": "Ada"}).json()
    assert undone["pair"] == state["pair"] and undone["done"] == state["done"]
    none = post(server, "/undo", {"reviewer": "Ada"})
    assert none.status_code == 409 and "no label since" in none.json()["error"]
    assert isinstance(post(server, "/figures", {}).json(), list)


@pytest.mark.parametrize(
    "headers",
    [
        {TOKEN_HEADER: "wrong"},
        {TOKEN_HEADER: ""},
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
    ids=["wrong token", "no token", "rebound name", "foreign page", "opaque page"],
)
def test_foreign_request_is_refused(server: ReviewServer, headers: dict[str, str]) -> None:
    refused = post(server, "/next", {"reviewer": "Eve"}, **headers)
    assert refused.status_code == 403 and "pair" not in refused.json()


def test_rebound_name_does_not_get_the_page(server: ReviewServer) -> None:
    assert httpx.get(server.url, headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "body"),
    [("/next", []), ("/next", {}), ("/label", {"reviewer": "Ada"}), ("/other", {})],
)
def test_broken_request_is_refused(server: ReviewServer, path: str, body: object) -> None:
    assert post(server, path, body).status_code == 400
    assert post(server, "/next", {"reviewer": "Ada"}).status_code == 200


def test_large_or_endless_body_is_not_read(server: ReviewServer) -> None:
    assert post(server, "/next", {"reviewer": "x" * 20_000}).status_code == 400


def test_only_this_machine_is_served(server: ReviewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match=r"refused|unreachable"):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=2).close()


def test_browser_that_closes_before_its_answer_is_no_error(
    server: ReviewServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, is_shown in ((BrokenPipeError(), False), (ValueError("a bug"), True)):
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))
        assert ("Traceback" in capsys.readouterr().err) == is_shown


def test_name_of_a_person_is_checked(server: ReviewServer) -> None:
    refused = post(server, "/next", {"reviewer": "a\u202eb"})
    assert refused.status_code == 409 and "printable" in refused.json()["error"]
