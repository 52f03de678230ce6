"""Compiles a pipeline to the file that Kubeflow runs: IR YAML, or Kubernetes-native manifests."""

import argparse
import hashlib
import inspect
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.base_component import BaseComponent

from maskcast.diagnostics.compatibility import window_warnings
from maskcast.diagnostics.unread_sections import UnreadSections
from maskcast.errors import MaskcastError
from maskcast.params import load_params_file, validate
from maskcast.progress import say
from maskcast.redaction import redacted
from maskcast.runner.stage import get_stage, stage_names
from maskcast.writing import write_atomically
from pipelines import PIPELINES
from pipelines.cluster import Cluster, Placement, load_cluster
from pipelines.dag import tasks_of
from pipelines.grid import Plan, build_grid, plan
from pipelines.options import add_cluster, add_grid, add_pipeline
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
    pipeline, _ = build_given(args, args.set, Placement(cluster.image, cluster))
    write_pipeline(pipeline, out, native=cluster if args.native else None)
    report_warnings(args)
    if problem := cluster.image_problem:
        say(f"warning: {args.cluster}: image {'; '.join(problem)}")
    print(out)
    return 0


def build(name: str, params_file: Path, overrides: Sequence[str], on: Placement) -> BaseComponent:
    """Returns a pipeline whose parameters default to the sections of the params file.

    Raises:
        MaskcastError: names the faulty key.
    """
    _check_stages(on.cluster)
    return _built(name, for_kfp(values_of(name, params_file, overrides)), on)


def build_given(
    args: argparse.Namespace, overrides: Sequence[str], on: Placement
) -> tuple[BaseComponent, Plan | None]:
    """Returns the pipeline for the given flags, and the plan of its grid if they name one.

    Raises:
        MaskcastError: names the faulty key.
    """
    if args.grid is None:
        return build(args.pipeline, args.params, overrides, on), None
    plain_on = Placement("image")
    plain = build(args.pipeline, args.params, overrides, plain_on)
    _check_stages(on.cluster)
    values = values_of(args.pipeline, args.params, overrides)
    grid_plan = plan(args.grid, args.jobs, values, plain, plain_on)
    return build_grid(plain.name, for_kfp(values), grid_plan, on), grid_plan


def values_of(name: str, params_file: Path, overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the validated sections of a pipeline from a params file.

    Raises:
        MaskcastError: names the faulty key, or the pipeline that the file is for.
    """
    content = load_params_file(params_file)
    for other in PIPELINES if stages_of(name).keys() - content.keys() else ():
        if stages_of(other).keys() <= content.keys():
            raise MaskcastError(
                f"{params_file}: has the sections of the pipeline {other}, not of {name}; use --pipeline {other}"
            )
    sources = {task: entry.sources for task, entry in tasks_of(_plain(name)[0]).items()}
    values = checked_values(content, params_file, overrides, stages_of(name), sources)
    if errors := _unread(name, params_file, content).errors:
        raise MaskcastError(errors[0])
    return values


def report_warnings(args: argparse.Namespace) -> None:
    """Prints what is probably a mistake in the params that are given by the flags.

    Raises:
        MaskcastError: names the faulty key.
    """
    values, stages = values_of(args.pipeline, args.params, args.set), stages_of(args.pipeline)
    params = {name: validate(get_stage(stages[name]).params, given, name) for name, given in values.items()}
    lines = [f"{args.params}: {text}" for _, text in window_warnings(params)]
    for line in [*lines, *_unread(args.pipeline, args.params, load_params_file(args.params)).warnings]:
        say(f"warning: {line}")


def _unread(name: str, params_file: Path, content: Mapping[str, Any]) -> UnreadSections:
    read = stages_of(name)
    others = PIPELINES if content.keys() - read.keys() else ()  # building them all takes a second
    sections = {section for other in others for section in stages_of(other)}
    return UnreadSections.of(content, params_file, read, sections)


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
    """Checks that a cluster's `stages` are stages, or names of stages in any pipeline."""
    if cluster is None:
        return
    for key in cluster.stages:
        names = [*stage_names(), *(name for pipeline in PIPELINES for name in stages_of(pipeline))]
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
        MaskcastError: shows the line without the secret.
    """
    for line in text.splitlines():
        if (shown := redacted(line)) != line:
            raise MaskcastError(
                f"{pipeline}: the pipeline would contain a secret ({shown.strip()[:120]}); pass it to the pods "
                "with `secrets` of the cluster file"
            )


def content_digest(compiled: Path) -> str:
    """Returns the version of a pipeline: 12 digits of the hash of its content.

    Comments and the order of keys are ignored, because kfp starts the file with defaults in random order.
    """
    content = list(yaml.load_all(compiled.read_bytes(), yaml.CSafeLoader))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
