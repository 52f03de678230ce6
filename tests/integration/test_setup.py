"""`setup` against a Kubernetes API by contract: what it prints, what it applies, and what it never writes."""

import base64
import io
import subprocess

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from tests.integration.kube_api import cluster_file, path_of

from maskcast.__main__ import main

KEYS = {"AWS_ACCESS_KEY_ID": "key-of-the-team", "AWS_SECRET_ACCESS_KEY": "secret-of-the-team"}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return KEYS


def test_what_is_printed_is_valid_and_holds_no_secret(tmp_path, keys, capsys):
    cluster = cluster_file(tmp_path, labels={"team": "vision"})
    assert main(["pipeline", "setup", "--cluster", str(cluster)]) == 0
    out, err = capsys.readouterr()
    printed = list(yaml.safe_load_all(io.StringIO(out)))
    assert [each["kind"] for each in printed] == ["ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim"]
    assert printed[-1]["metadata"]["labels"] == {"team": "vision", "app.kubernetes.io/part-of": "maskcast"}
    for version in all_versions()[-5:]:
        for manifest in printed:
            kubernetes_validate.validate(manifest, version, strict=True)
    assert {each["metadata"]["namespace"] for each in printed} == {"team"}
    assert not any(value in out + err for value in keys.values())
    assert err.count("kubectl create secret generic maskcast-s3 -n team --from-env-file=/dev/stdin") == 1


def test_the_command_for_a_secret_names_variables_and_not_their_values(tmp_path, keys, capsys):
    main(["pipeline", "setup", "--cluster", str(cluster_file(tmp_path))])
    command = capsys.readouterr().err.partition("environment: ")[2].partition("|")[0]
    printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert printed == "AWS_ACCESS_KEY_ID\nAWS_SECRET_ACCESS_KEY\n"


def test_applying_creates_everything_and_again_changes_nothing(kube, tmp_path, keys, capsys):
    cluster = str(cluster_file(tmp_path))
    assert main(["pipeline", "setup", "--cluster", cluster, "--apply"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"{kube.url}, namespace team",
        "ServiceAccount/maskcast-runner: applied",
        "Role/maskcast-for-maskcast-runner: applied",
        "RoleBinding/maskcast-for-maskcast-runner: applied",
        "PersistentVolumeClaim/maskcast-workspace: applied",
        "Secret/maskcast-s3: applied",
    ]
    data = kube.get("secrets", "maskcast-s3", "team").data
    assert {name: base64.b64decode(value).decode() for name, value in data.items()} == keys
    before = dict(kube.objects)
    assert main(["pipeline", "setup", "--cluster", cluster, "--apply"]) == 0
    assert kube.objects == before


def test_two_cluster_files_of_a_namespace_keep_their_rights(kube, tmp_path, monkeypatch):
    for name in ("a", "b"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
        secrets = {f"s3-{name}": ["AWS_ACCESS_KEY_ID"]}
        cluster = cluster_file(tmp_path, service_account=f"runner-{name}", secrets=secrets)
        assert main(["pipeline", "setup", "--cluster", str(cluster), "--apply"]) == 0
    for name in ("a", "b"):
        rules = kube.get("roles", f"maskcast-for-runner-{name}", "team").rules
        (named,) = (rule.resource_names for rule in rules if rule.resources == ["secrets"])
        assert f"s3-{name}" in named


def test_a_secret_that_is_there_is_kept_without_its_values_in_the_environment(
    kube, tmp_path, keys, monkeypatch, capsys
):
    cluster = str(cluster_file(tmp_path))
    main(["pipeline", "setup", "--cluster", cluster, "--apply"])
    before = kube.get("secrets", "maskcast-s3", "team")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    capsys.readouterr()
    assert main(["pipeline", "setup", "--cluster", cluster, "--apply"]) == 0
    assert "Secret/maskcast-s3: kept, AWS_SECRET_ACCESS_KEY not in the environment" in capsys.readouterr().out
    assert kube.get("secrets", "maskcast-s3", "team") is before


def test_a_secret_of_others_is_left_and_must_be_there(kube, tmp_path, keys, capsys):
    cluster = cluster_file(tmp_path, secrets={"minio": {"AWS_ACCESS_KEY_ID": "accesskey"}})
    assert main(["pipeline", "setup", "--cluster", str(cluster), "--apply"]) == 2
    assert capsys.readouterr().err == (
        "error: secret minio: not in team with the keys accesskey; make it there, or list its variables without "
        f"keys in {cluster}\n"
    )
    before = kube.put("secrets", "minio", "team", data={"accesskey": "eA=="})
    assert main(["pipeline", "setup", "--cluster", str(cluster), "--apply"]) == 0
    assert "Secret/minio: kept, made by others" in capsys.readouterr().out
    assert kube.get("secrets", "minio", "team") is before
    assert main(["pipeline", "setup", "--cluster", str(cluster)]) == 0
    assert "minio" not in capsys.readouterr().err


def test_without_a_workspace_and_with_a_pull_secret(kube, tmp_path, keys):
    cluster = cluster_file(tmp_path, workspace=None, image_pull_secrets=["registry"])
    assert main(["pipeline", "setup", "--cluster", str(cluster), "--apply"]) == 0
    (secret,) = kube.get("serviceaccounts", "maskcast-runner", "team").image_pull_secrets
    assert secret.name == "registry"
    assert not any("/persistentvolumeclaims/" in path for path in kube.objects)


@pytest.mark.parametrize(
    ("break_it", "line"),
    [
        (
            lambda kube, env: env.delenv("AWS_ACCESS_KEY_ID"),
            "error: secret maskcast-s3: AWS_ACCESS_KEY_ID not in the environment; set the secret's values there",
        ),
        (
            lambda kube, env: kube.objects.pop(path_of("namespaces", "team")),
            "error: namespace 'team' not found; create it with `kubectl create namespace team`",
        ),
        (
            lambda kube, env: kube.refused.update({"PATCH .*/serviceaccounts/": 403}),
            'error: PATCH /api/v1/namespaces/team/serviceaccounts/maskcast-runner is forbidden: User "alice"',
        ),
        (
            lambda kube, env: kube.refused.update({"PATCH .*/serviceaccounts/": 503}),
            "error: the Kubernetes API answers 503: no; ",
        ),
        (
            lambda kube, env: env.setenv("KUBECONFIG", "/nowhere/config"),
            "error: /nowhere/config: no cluster configured (",
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_nothing_is_applied(
    kube, tmp_path, keys, monkeypatch, capsys, break_it, line
):
    before = set(kube.objects)
    break_it(kube, monkeypatch)
    assert main(["pipeline", "setup", "--cluster", str(cluster_file(tmp_path)), "--apply"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(line), err
    assert err.count("\n") == 1
    assert "applied" not in out
    assert set(kube.objects) <= before
