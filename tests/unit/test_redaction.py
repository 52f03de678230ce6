"""No secret stands in a line: by its place in an address, and by what the environment's variables hold."""

import os
from collections.abc import Iterator

import pytest

from maskcast.redaction import has_user, is_secret, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:pass@host:5000/x", "https://***@host:5000/x"),
        ("see http://ann:p@ss/w@rd@host/a, then b@c", "see http://***@host/a, then b@c"),
        ("dvc:https://ghp_TOKEN@github.com/a/b#c", "dvc:https://***@github.com/a/b#c"),
        ("postgresql+psycopg2://mlflow:secret@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("s3://bucket/frame@2x.png", "s3://bucket/frame@2x.png"),
        ("http://127.0.0.1:5000/models@champion", "http://127.0.0.1:5000/models@champion"),
        ("models:/maskcast@champion", "models:/maskcast@champion"),
        ("file:///data/a@b", "file:///data/a@b"),
        ("https://host/x?X-Amz-Signature=abc123&part=1", "https://host/x?X-Amz-Signature=***&part=1"),
        ("https://host/x?api_key=abc&token=def", "https://host/x?api_key=***&token=***"),
        ("{'X': 'Bearer abcdefgh.ijklmnop-1'}", "{'X': 'Bearer ***'}"),
        ("Authorization: Basic YW5uOnBhc3N3b3JkMTI=", "Authorization: Basic ***"),
        ("AccountName=a;AccountKey=b3BlbiBzZXNhbWU=;Suffix=c", "AccountName=a;AccountKey=***;Suffix=c"),
        ("Basic characterization of the Bearer", "Basic characterization of the Bearer"),
    ],
    ids=range(14),  # pytest has the id in its environment
)
def test_addresses(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "p@ss/word", "Basic p@ss/word, and p%40ss%2Fword in an address"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG", "signed by wJalrXUtnFEMI/K7MDENG"),
        ("GITHUB_TOKEN", "ghp_0123456789", "fatal: ghp_0123456789 was refused"),
        ("MLFLOW_TRACKING_TOKEN", "ghp_0123456789\n", r"invalid header value b'Bearer ghp_0123456789\n'"),
        ("MLFLOW_TRACKING_URI", "https://ann:p@ss/word@host", "login as ann with p@ss/word failed"),
        ("MLFLOW_REGISTRY_URI", "http://to/ken123:secret99@db/x", "password secret99 is wrong"),
        ("KF_PIPELINES_COOKIE", "session=ghp_0123456789", "Cookie: session=ghp_0123456789"),
        ("AZURE_STORAGE_KEY", "secret99/b3==", "signed by secret99/b3=="),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;Key=secret99", "got AccountName=a;Key=secret99"),
    ],
    ids=range(9),
)
def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str) -> None:
    monkeypatch.setenv(name, value)
    hidden = redacted(text)
    assert "***" in hidden
    assert not [secret for secret in ("p@ss", "p%40ss", "wJalr", "ghp_0", "secret99") if secret in hidden]


def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mlflow")  # a word of its own
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS_FILE", "/etc/credentials.json")
    text = "mlflow.db and /etc/credentials.json of mlflow"
    assert redacted(text) == text
    assert not has_user("https://host/a@b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GOOGLE_APPLICATION_CREDENTIALS", "/secrets/gcp.json"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token"),
        ("TLS_PRIVATE_KEY_PATH", "/etc/ssl/key.pem"),
        ("OIDC_TOKEN_URL", "https://login.example.com/token"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MLFLOW_TRACKING_URI", "http://mlflow.mlflow.svc:5000"),
    ],
)
def test_a_variable_may_point_to_a_secret(name: str, value: str) -> None:
    assert not is_secret(name, value)
    assert is_secret(name, f"https://ann:pass@{value.strip('/')}")


@pytest.mark.parametrize("name", ["COMPASS", "PROXY_BYPASS"])
def test_a_word_that_ends_like_a_password_is_none(name: str) -> None:
    assert not is_secret(name, "north-north-west")
    assert is_secret("DB_PASS", "hush-hush") and is_secret("PASS", "hush-hush")


def test_a_long_word_takes_no_longer_than_many_short_ones() -> None:
    word = "x" * 1_000_000  # as of a value in an error; this took hours
    assert redacted(f"{word} {word}https://me:mine@host") == f"{word} {word}https://***@host"


def test_variables_may_go_while_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    class Going(dict[str, str]):
        """Names a variable that another thread has just removed."""

        def __iter__(self) -> Iterator[str]:
            return iter([*super().__iter__(), "GONE"])

    monkeypatch.setattr(os, "environ", Going(API_TOKEN="hush-hush-hush"))
    assert "hush" not in redacted("the token is hush-hush-hush")
