"""compile: a pipeline -> the file that Kubeflow runs (IR YAML, or Kubernetes-native manifests)."""

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.base_component import BaseComponent

from maskcast.errors import MaskcastError
from pipelines import PIPELINES
from pipelines.cluster import Cluster, Placement, load_cluster
from pipelines.options import add_cluster, add_pipeline
from pipelines.values import for_kfp, load_values

HELP = "write the file that Kubeflow runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
    add_cluster(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="file to write (default: <pipeline>.yaml)")
    parser.add_argument(
        "--native",
        action="store_true",
        help="write Pipeline and PipelineVersion manifests for `kubectl apply` instead of IR YAML",
    )


def run(given: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    cluster = load_cluster(given.cluster)
    out = given.out or Path(f"{given.pipeline}.yaml")
    built = build(given.pipeline, given.params, given.set, Placement(cluster.image, cluster))
    write(built, out, native=cluster if given.native else None)
    print(out)
    return 0


def build(name: str, params_file: Path, overrides: Sequence[str], on: Placement) -> BaseComponent:
    """Returns a pipeline whose parameters default to the sections of the params file.

    Raises:
        MaskcastError: naming the key at fault.
    """
    values = for_kfp(load_values(params_file, overrides))
    try:
        return PIPELINES[name](values, on)
    except KeyError as error:
        raise MaskcastError(f"{params_file}: pipeline {name} needs a section {error}; add it") from None


def write(built: BaseComponent, path: Path, native: Cluster | None = None) -> None:
    """Writes IR YAML, or with ``native`` the manifests of a Pipeline and a PipelineVersion in its namespace.

    Raises:
        MaskcastError: when the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        Compiler().compile(built, str(compiled))
        if native is not None:
            options = KubernetesManifestOptions(
                pipeline_name=built.name,
                pipeline_version_name=version_name(built.name, compiled),
                namespace=native.namespace,
                include_pipeline_manifest=True,
            )
            Compiler().compile(
                built, str(compiled), kubernetes_manifest_format=True, kubernetes_manifest_options=options
            )
        try:
            partial = path.with_name(path.name + ".partial")
            partial.write_bytes(compiled.read_bytes())
            partial.replace(path)
        except OSError as error:
            raise MaskcastError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None


def version_name(pipeline: str, compiled: Path) -> str:
    """Returns the name of a pipeline's version: one per content, so that the same content makes one version."""
    return f"{pipeline}-{hashlib.sha256(compiled.read_bytes()).hexdigest()[:12]}"
