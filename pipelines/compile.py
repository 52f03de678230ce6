"""Compiles a pipeline to the file that Kubeflow runs: IR YAML, or Kubernetes-native manifests.

The file has no service account: give that of the cluster file where you start the run. `submit` does so itself.
"""

import argparse
import inspect
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.base_component import BaseComponent

from maskcast.diagnostics.conflicts import window_warnings
from maskcast.diagnostics.unread_sections import UnreadSections
from maskcast.digest import digest_json
from maskcast.errors import MaskcastError
from maskcast.params import load_params_file
from maskcast.progress import say
from maskcast.redaction import redacted
from maskcast.runner.stage import stage_names
from maskcast.writing import write_atomically
from pipelines import PIPELINES
from pipelines.cluster import Cluster, load_cluster
from pipelines.dag import tasks_of
from pipelines.grid import COMPARISON, Plan, build_grid, plan
from pipelines.options import add_cluster, add_grid, add_pipeline
from pipelines.placement import Placement
from pipelines.scale import pods_of_nodes
from pipelines.values import checked_values, for_kfp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
    add_grid(parser)
    add_cluster(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="file to write (default: <pipeline>.yaml)")
    parser.add_argument(
        "--native",
        action="store_true",
        help="write Pipeline and PipelineVersion manifests for `kubectl apply` instead of IR YAML",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    cluster = load_cluster(args.cluster)
    out = args.out or Path(f"{args.pipeline}.yaml")
    values, warnings = read_values(args.pipeline, args.params, args.set)
    placement, grid = Placement(cluster.image, cluster), grid_plan(args, values)
    pipeline = build(args.pipeline, values, placement, grid)
    pods_of_nodes(placement, values, grid)
    write_pipeline(pipeline, out, native=cluster if args.native else None)
    report(warnings)
    if problem := cluster.image_problem:
        say(f"warning: {args.cluster}: image {'; '.join(problem)}")
    print(out)
    return 0


def build(name: str, values: Mapping[str, Any], on: Placement, grid: Plan | None = None) -> BaseComponent:
    """Returns a pipeline, or a grid of its variants.

    Args:
        name: name of the pipeline.
        values: sections of its params file, which become defaults of its parameters.
        on: placement of the tasks.
        grid: plan of the grid, if any.

    Raises:
        MaskcastError: the cluster file has an unknown stage.
    """
    _check_stages(on.cluster)
    if grid is None:
        return _built(name, for_kfp(values), on)
    return build_grid(_plain(name)[0].name, for_kfp(values), grid, on)


def grid_plan(args: argparse.Namespace, values: Mapping[str, dict[str, Any]]) -> Plan | None:
    """Returns the plan of the grid that the flags name, or None.

    Raises:
        MaskcastError: the grid file is invalid; names the fault.
    """
    return None if args.grid is None else plan(args.grid, args.jobs, values, *_plain(args.pipeline))


class PipelineValues(NamedTuple):
    """The values of a pipeline's params."""

    sections: dict[str, dict[str, Any]]
    """Validated sections, by name."""
    warnings: list[str]
    """What is probably a mistake in the params file."""


def read_values(name: str, params_file: Path, overrides: Sequence[str]) -> PipelineValues:
    """Returns the values of a pipeline from a params file and `-S`.

    Raises:
        MaskcastError: names the faulty key, or the pipeline that the file is for.
    """
    content, stages = load_params_file(params_file), stages_of(name)
    for other in PIPELINES if stages.keys() - content.keys() else ():
        if stages_of(other).keys() <= content.keys():
            raise MaskcastError(
                f"{params_file}: has the sections of the pipeline {other}, not of {name}; use --pipeline {other}"
            )
    sources = {task: entry.sources for task, entry in tasks_of(_plain(name)[0]).items()}
    sections, params = checked_values(content, params_file, overrides, stages, sources)
    pipelines = PIPELINES if content.keys() - stages.keys() else ()  # building them all takes a second
    known = {section for pipeline in pipelines for section in stages_of(pipeline)}
    unread = UnreadSections.of(content, params_file, stages, known)
    if unread.errors:
        raise MaskcastError(unread.errors[0])
    windows = [f"{params_file}: {text}" for _, text in window_warnings(params)]
    return PipelineValues(sections, windows + unread.warnings)


def report(warnings: Sequence[str]) -> None:
    """Prints the warnings of `read_values`."""
    for line in warnings:
        say(f"warning: {line}")


def stages_of(name: str) -> dict[str, str]:
    """Returns the stages of a pipeline by their names in it, which are the names of their sections."""
    return _plain(name)[1].stages


@cache
def _plain(name: str) -> tuple[BaseComponent, Placement]:
    """Returns a pipeline without params, built once, and the placement with its stages."""
    on = Placement("image")
    return _built(name, defaultdict(dict), on), on


def _built(name: str, values: Mapping[str, Any], on: Placement) -> BaseComponent:
    module, _, function = PIPELINES[name].partition(":")
    pipeline: Callable[..., None] = getattr(import_module(module), function)
    _, *sections = inspect.signature(pipeline).parameters
    description = (inspect.getdoc(pipeline) or "").rstrip(".")
    parameters = {section: (dict, values[section]) for section in sections}
    return on.pipeline(f"maskcast-{name.replace('_', '-')}", description, partial(pipeline, on), parameters)


def _check_stages(cluster: Cluster | None) -> None:
    """Checks that a cluster's `stages` are stages, names of some in any pipeline, or the comparison of a grid."""
    if cluster is None:
        return
    for key in cluster.stages:
        names = [*stage_names(), *(name for pipeline in PIPELINES for name in stages_of(pipeline)), COMPARISON]
        if key not in names:
            raise MaskcastError(
                f"{cluster.file}: stages.{key}: unknown stage {key!r}; stages: {', '.join(sorted(set(names)))}"
            )


def write_pipeline(built: BaseComponent, path: Path, native: Cluster | None = None) -> None:
    """Writes IR YAML, or with ``native`` manifests of Pipeline and PipelineVersion in its namespace.

    Raises:
        MaskcastError: if the file cannot be written, or would contain a secret.
    """
    if path.is_dir():
        raise MaskcastError(f"{path}: is a folder; give a file with --out")
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        Compiler().compile(built, str(compiled))
        refuse_secrets(compiled.read_text(encoding="utf-8"), built.name)
        if native is not None:
            options = KubernetesManifestOptions(
                pipeline_name=built.name,
                pipeline_version_name=f"{built.name}-{content_digest(compiled)}",  # unique in a namespace
                namespace=native.namespace,
                include_pipeline_manifest=True,
            )
            Compiler().compile(
                built, str(compiled), kubernetes_manifest_format=True, kubernetes_manifest_options=options
            )
        try:
            write_atomically(path, compiled.read_text(encoding="utf-8"))
        except OSError as error:
            raise MaskcastError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None


def refuse_secrets(text: str, pipeline: str) -> None:
    """Refuses a text that contains a secret, because the cluster keeps it and shows it to everyone.

    Raises:
        MaskcastError: shows the line without the secret, if it is in one line.
    """
    if redacted(text) == text:
        return
    for line in text.splitlines():
        if (shown := redacted(line)) != line:
            raise MaskcastError(
                f"{pipeline}: the pipeline would contain a secret ({shown.strip()[:120]}); pass it to the pods "
                "with `secrets` of the cluster file"
            )
    raise MaskcastError(
        f"{pipeline}: the pipeline would contain a secret of several lines; pass it to the pods with `secrets` of "
        "the cluster file"
    )


def content_digest(compiled: Path) -> str:
    """Returns the version of a pipeline: 12 digits of the hash of its content.

    Comments and the order of keys are ignored, because kfp starts the file with defaults in random order.
    """
    content = list(yaml.load_all(compiled.read_bytes(), yaml.CSafeLoader))
    return digest_json(content, 12)
