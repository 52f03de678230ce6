"""No secret stands in a line: by its place in an address, and by what the environment's variables hold."""

import os
from collections.abc import Iterator

import pytest

from maskcast.redaction import has_user, redacted


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
    ],
    ids=range(10),  # pytest has the id in its environment
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
    ],
    ids=range(6),
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
