"""Tags and aliases: those that two processes write at the same moment, and those that a version has."""

import json
from typing import Any

import pytest
from mlflow.exceptions import RestException
from tests.servers import Handler, Server

from maskcast.registry.store import Registry

# what MLflow 3.17 with PostgreSQL answered to two registrations of equal weights
CONFLICT = (
    "(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "
    '"registered_model_alias_pk" DETAIL:  Key (workspace, name, alias)=(default, twins, candidate) exists.'
)


class TwoAtOnce(Handler):
    """As much of MLflow as writes tags and aliases; it refuses the first requests."""

    refused = 1
    said = CONFLICT
    tags: dict[str, str]  # of version 1

    def do_GET(self) -> None:
        tags = [{"key": name, "value": value} for name, value in self.tags.items()]
        version = {"name": "twins", "version": "1", "tags": tags}
        self._answer(200, {"registered_model": {"name": "twins"}, "model_version": version})

    def do_POST(self) -> None:
        written = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).refused -= 1
        if self.refused >= 0:
            self._answer(400, {"error_code": "BAD_REQUEST", "message": self.said})
        else:
            if "key" in written:
                self.tags[written["key"]] = written["value"]
            self._answer(200, {})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize("what", ["alias", "tag of a version", "tag of a model"])
@pytest.mark.parametrize(
    ("refused", "said", "succeeds"), [(1, CONFLICT, True), (2, CONFLICT, False), (1, "value too long", False)]
)
def test_what_another_process_wrote_at_the_same_moment_is_written_again(
    what: str, refused: int, said: str, succeeds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = type("Handler", (TwoAtOnce,), {"refused": refused, "said": said, "tags": {}})
    with Server(handler) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        registry = Registry("twins", creates=True)
        write = {
            "alias": lambda: registry.set_alias("candidate", 1),
            "tag of a version": lambda: registry.tag(1, {"maskcast.digest": "1a"}),
            "tag of a model": lambda: registry.tag_model("maskcast.champions", "1"),
        }[what]
        if succeeds:
            write()
        else:
            with pytest.raises(RestException, match=said.partition(" ")[0].strip("()")):
                write()


def test_of_a_version_only_the_tags_that_differ_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"maskcast.digest": "1a", "maskcast.verdict": "failed"}
    handler = type("Handler", (TwoAtOnce,), {"refused": 0, "tags": tags})
    with Server(handler) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        Registry("twins", creates=True).tag(
            1, {"maskcast.digest": "1a", "maskcast.verdict": "passed", "maskcast.data": "2b"}
        )
    assert tags == {"maskcast.digest": "1a", "maskcast.verdict": "passed", "maskcast.data": "2b"}
    assert handler.refused == -2  # two were written
