"""Prepares a run or schedule: uploads the pipeline's version, and returns the values of its parameters."""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_server_api.models import V2beta1Pipeline

from maskcast.errors import MaskcastError
from maskcast.progress import say
from pipelines.client.connection import Client, cluster_of, connect
from pipelines.client.preflight import print_checks
from pipelines.cluster import Cluster
from pipelines.compile import (
    build,
    content_digest,
    grid_plan,
    read_values,
    refuse_secrets,
    report,
    write_pipeline,
)
from pipelines.options import add_cluster, add_grid, add_pipeline
from pipelines.placement import Placement
from pipelines.scale import pods_of_nodes
from pipelines.values import for_kfp, local_data


@dataclass(frozen=True)
class Package:
    """A compiled pipeline and the values of one run."""

    pipeline: str
    version: str
    """Derived from the content, so that equal content has equal versions. Servers prefix the pipeline's name."""
    ir: str
    """Compiled pipeline, as YAML."""
    parameters: dict[str, Any]
    """All sections, so that a run shows all its values."""


def add_package(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that `make_package` reads, and the experiment."""
    add_pipeline(parser)
    add_grid(parser)
    add_cluster(parser)
    parser.add_argument(
        "--experiment", default="maskcast", help="experiment, created if missing (default: %(default)s)"
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="run every stage, also those whose outputs Kubeflow's cache has"
    )
    parser.add_argument("--no-preflight", action="store_true", help="do not check the cluster first")


def make_package(args: argparse.Namespace, cluster: Cluster) -> Package:
    """Returns the package to submit. `-S` changes only values of the run, not the version of the pipeline.

    Raises:
        MaskcastError: a key is invalid, the image is not pinned, pods cannot read the data, or a training would
            fail on the cluster.
    """
    cluster.check_image()
    values, warnings = read_values(args.pipeline, args.params, args.set)
    if data := local_data(values):
        raise MaskcastError(
            f"fetch_dataset.uri: {data} is on this machine, where pods cannot read it; copy it to a bucket and "
            "use s3://bucket/prefix"
        )
    defaults, _ = read_values(args.pipeline, args.params, ())
    placement = Placement(cluster.image, cluster, caching=not args.no_cache)
    built = build(args.pipeline, defaults, placement, grid_plan(args, defaults))
    grid = grid_plan(args, values)
    pods_of_nodes(placement, values, grid)
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        write_pipeline(built, compiled)
        sections = {name: for_kfp(values[name]) for name in built.component_spec.inputs if name in values}
        parameters = sections | ({"variants": grid.items} if grid else {})
        refuse_secrets(json.dumps(parameters, indent=1), built.name)
        report(warnings)
        return Package(
            pipeline=built.name,
            version=content_digest(compiled),
            ir=compiled.read_text(encoding="utf-8"),
            parameters=parameters,
        )


@contextmanager
def prepare_submission(args: argparse.Namespace) -> Iterator[tuple[Client, Package, dict[str, Any]]]:
    """Yields what starting a run or schedule needs: client, package and arguments for kfp.

    The cluster is checked first, with a report on stderr, unless ``--no-preflight`` is given.

    Raises:
        MaskcastError: names the faulty key, or what is missing.
    """
    cluster = cluster_of(args)
    package = make_package(args, cluster)
    with connect(args) as client:
        if not args.no_preflight:
            with contextlib.redirect_stdout(sys.stderr):
                passed = print_checks(args, cluster, client)
            if not passed:
                raise MaskcastError("preflight failed; fix the failed rows, or add --no-preflight")
        settings = {"pipeline_root": cluster.pipeline_root, "service_account": cluster.service_account}
        yield client, package, {"params": package.parameters} | settings


def upload(client: Client, package: Package) -> dict[str, str]:
    """Uploads pipeline and version if they are new; returns their ids as arguments for kfp.

    Raises:
        MaskcastError: if the server refuses.
    """
    namespace = client.get_user_namespace()
    pipelines = client.list_pipelines(namespace=namespace, filter=_named(package.pipeline)).pipelines
    if not pipelines:
        pipeline = V2beta1Pipeline(display_name=package.pipeline, namespace=namespace or None)
        pipelines = [client.pipelines.pipeline_service_create_pipeline(pipeline=pipeline)]
    pipeline_id: str = pipelines[0].pipeline_id
    versions = client.list_pipeline_versions(pipeline_id, filter=_named(package.version)).pipeline_versions
    state = "already uploaded" if versions else "uploading"
    say(f"pipeline {package.pipeline}, version {package.version} ({state})")
    if not versions:
        with tempfile.TemporaryDirectory() as folder, quiet():
            compiled = Path(folder) / "pipeline.yaml"
            compiled.write_text(package.ir, encoding="utf-8")
            versions = [client.upload_pipeline_version(str(compiled), package.version, pipeline_id)]
    return {"pipeline_id": pipeline_id, "version_id": versions[0].pipeline_version_id}


def experiment_id(client: Client, name: str) -> str:
    """Returns the id of an experiment, which is created if it does not exist.

    Raises:
        MaskcastError: if the server refuses.
    """
    with quiet():
        experiment: str = client.create_experiment(name).experiment_id
    return experiment


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which kfp prints no links, because it does not know the UI's address."""
    return contextlib.redirect_stdout(io.StringIO())


def _named(name: str) -> str:
    """Returns kfp's filter by name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
