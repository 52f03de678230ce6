"""What is said where MLflow answers, and its store of files does not."""

import json
from pathlib import Path

import pytest
from tests.servers import Handler, Server

from maskcast.errors import MaskcastError
from maskcast.runner.mlflow_client import download_files, new_client
from maskcast.runner.mlflow_errors import convert_mlflow_errors

ANSWERS = {
    "/api/2.0/mlflow/runs/get": {
        "run": {"info": {"run_id": "r", "artifact_uri": "mlflow-artifacts:/1/r/artifacts"}}
    },
    "/api/2.0/mlflow-artifacts/artifacts": {"files": [{"path": "metrics.json", "is_dir": False, "file_size": 2}]},
}


class WithoutFiles(Handler):
    """As much of MLflow as a download asks for; each file is refused."""

    status = 500

    def do_GET(self) -> None:
        found = ANSWERS.get(self.path.partition("?")[0])
        body = json.dumps(found or {}).encode()
        self.send_response(200 if found else self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(("status", "said"), [(500, "too many 500 error responses"), (401, "401 Client Error")])
def test_why_files_of_a_run_cannot_be_fetched_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    handler = type("Handler", (WithoutFiles,), {"status": status})
    with Server(handler) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        with pytest.raises(MaskcastError, match=said) as caught, convert_mlflow_errors():
            download_files(new_client(), "r", "evaluation", tmp_path)
    assert "\n" not in str(caught.value)
