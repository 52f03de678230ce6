"""A small hub on this machine, which speaks what `hf_hub_download` asks of the Hugging Face hub."""

import hashlib
from pathlib import Path

import pytest
from tests.servers import Handler, Server

COMMIT = "c0ffee00" * 5


class Hub(Server):
    """Repositories of one commit, which is `main`, too.

    Attributes:
        files: contents by `<owner>/<name>/<file>`.
        asked: what was asked for, `METHOD path`.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(_Handler)
        self.files, self.asked = files, list[str]()

    def take_over(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Makes this process ask here, with an empty cache."""
        from huggingface_hub import constants

        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, self.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", self.url)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)


class _Handler(Handler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        repo, _, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        content = self.server.files.get(f"{repo}/{name}")
        if not any(file.startswith(f"{repo}/") for file in self.server.files):
            self._refuse("RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._refuse("RevisionNotFound")
        elif content is None:
            self._refuse("EntryNotFound")
        else:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()
