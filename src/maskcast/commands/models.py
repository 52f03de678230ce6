"""The command `models`: lists, compares, evaluates, promotes, downloads, exports and deploys registered models."""

import argparse
import re
from pathlib import Path

from maskcast.commands.parser import add_commands
from maskcast.commands.pipeline import missing_package_errors, pipelines_module
from maskcast.errors import MaskcastError
from maskcast.reading import is_small_integer
from maskcast.registry.audit_trail import Decision
from maskcast.registry.lineage import lineage, summary_of_version
from maskcast.registry.promotion import promote, rollback
from maskcast.registry.store import CANDIDATE, CHAMPION, NAME, PIPELINE, PREVIOUS, Registry
from maskcast.registry.tables import compare_versions, list_versions
from maskcast.runner.mlflow_errors import convert_mlflow_errors

CLIPS = Path("data/clips")  # output of `dvc repro`
USED_WITH = {  # options of a command, and the option that they require
    "compare": (("clips",), "pictures", "--pictures FOLDER"),
    "lineage": (("clips", "repository"), "verify", "--verify"),
}
DESCRIPTION = "Lists, compares, evaluates, promotes, downloads, exports and deploys registered models."
EPILOG = """\
A VERSION is a number or an alias: candidate (the last to pass the gate), champion, previous. The registry is that
of MLFLOW_TRACKING_URI, or of mlflow.db in the working directory. See docs/registry.md.

examples:
  maskcast models list
  maskcast models promote
  maskcast models compare champion candidate --pictures differences
  maskcast models evaluate champion    # on clips that were added since
  maskcast models download champion --output start    # to train on from it
  maskcast models export champion --format onnx --output exported
  maskcast models deploy candidate --canary 10 --cluster my-cluster.yaml
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code: 0, or 1 if scores differ from the registered ones."""
    _check_options(args)
    with convert_mlflow_errors():
        match args.command:
            case "list":
                print(list_versions(args.name))
            case "promote":
                print(_decision_line(args.name, promote(args.name, args.version, args.reason or "", args.force)))
            case "rollback":
                print(_decision_line(args.name, rollback(args.name, args.reason or "")))
            case "compare":
                print(compare_versions(Registry(args.name), args.a, args.b, args.pictures, args.clips or CLIPS))
            case "evaluate":
                from maskcast.registry.reevaluation import evaluate_version

                evaluate_version(Registry(args.name), args.version, args.pipeline)
            case "download":
                from maskcast.registry.download import download_parts

                print(download_parts(Registry(args.name), args.version, args.output))
            case "export":
                print(_export(args))
            case "deploy":
                _deploy(args)
            case "undeploy":
                _undeploy(args)
            case "lineage":
                registry = Registry(args.name)
                if args.verify:
                    print(summary_of_version(registry, args.version))
                    return _verify(args)
                print(lineage(registry, args.version))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the commands and their flags."""
    parser.add_argument("--name", default=PIPELINE, help="the registered model (default: %(default)s)")
    commands = add_commands(parser)
    commands.add_parser("list", help="list versions, aliases, scores, data and commit, and the last decisions")
    _promote_arguments(
        commands.add_parser("promote", help="make a version the champion; the old champion becomes previous")
    )
    _rollback_arguments(commands.add_parser("rollback", help="make the previous version the champion again"))
    _compare_arguments(
        commands.add_parser("compare", help="compare the scores of two versions clip by clip, or image by image")
    )
    _lineage_arguments(
        commands.add_parser("lineage", help="show the origin of a version: runs, params, commit, image and data")
    )
    _evaluate_arguments(
        commands.add_parser(
            "evaluate",
            help="score a version on the pipeline's present data, so that new models can be compared with it",
        )
    )
    _download_arguments(
        commands.add_parser("download", help="write the parts of a version as folders that stages read")
    )
    _export_arguments(
        commands.add_parser("export", help="export a version as one graph, checked against the model")
    )
    _deploy_arguments(
        commands.add_parser("deploy", help="run a version on KServe, for all requests or a share of them")
    )
    _undeploy_arguments(commands.add_parser("undeploy", help="delete the service on KServe, or only its canary"))


def _promote_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("version", metavar="VERSION", nargs="?", default=CANDIDATE, help="default: %(default)s")
    command.add_argument(
        "--force", action="store_true", help="promote although the gate failed; requires --reason"
    )
    command.add_argument("--reason", metavar="TEXT", help="reason, which is recorded")


def _rollback_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--reason", metavar="TEXT", help="reason, which is recorded")


def _compare_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", metavar="A", help="a version, e.g. champion")
    command.add_argument("b", metavar="B", help="another, e.g. candidate")
    command.add_argument(
        "--pictures", metavar="FOLDER", type=Path, help="new folder: draw the clips that differ most"
    )
    command.add_argument("--clips", metavar="STORE", type=Path, help=f"clip store to draw from (default: {CLIPS})")


def _lineage_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("version", metavar="VERSION", help="number or alias")
    command.add_argument(
        "--verify", action="store_true", help="evaluate it again: exit code 0 if scores are equal, else 1"
    )
    command.add_argument("--repository", metavar="PATH|URL", help="Git repository with the commit (default: .)")
    command.add_argument("--clips", metavar="FOLDER", type=Path, help="the clip store (default: fetched by DVC)")


def _evaluate_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Masks and evaluates the clips that a pipeline has now, by its present params, with a version's weights, "
        "and stores the scores with the version. It keeps its number, aliases, files and verdict, and outputs of "
        "the pipeline stay as they are. Use it when the gate says that the champion was scored on other clips."
    )
    command.add_argument("version", metavar="VERSION", nargs="?", default=CHAMPION, help="default: %(default)s")
    command.add_argument(
        "--pipeline",
        metavar="FOLDER",
        type=Path,
        default=Path(),
        help="folder with a dvc.yaml (default: the working directory)",
    )


def _download_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Writes the masker and the forecaster of a pipeline, or the one part of another model, as folders that "
        "stages take, e.g. `train_masker --start`. Name, version and digest are in registered.json beside them. "
        "See docs/registry.md."
    )
    command.add_argument("version", metavar="VERSION", help="number or alias")
    command.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="new folder for the parts")


def _export_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "version",
        metavar="VERSION",
        help="number or alias, or the folder of a downloaded artifact or of a trained masker (./champion if it is "
        "called like an alias)",
    )
    command.add_argument("--format", choices=("torch-export", "onnx"), required=True, help="format of the graph")
    command.add_argument(
        "--output", metavar="FOLDER", type=Path, required=True, help="folder for the graph and export.json"
    )


def _deploy_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Creates an InferenceService for a version, or updates the existing one. A version that already has a "
        "share of the requests gets all of them without a restart. See docs/serving.md."
    )
    command.add_argument("version", metavar="VERSION", help="number or alias (resolved to a number now)")
    command.add_argument("--canary", metavar="PERCENT", type=_percent, help="share of the requests, 0 to 99")
    command.add_argument(
        "--dry-run", action="store_true", help="print the manifest for `kubectl apply`, change nothing"
    )
    command.add_argument("--wait", action="store_true", help="wait until it answers requests")
    _add_service(command)


def _undeploy_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--canary", action="store_true", help="delete only the canary; the previous version gets all requests"
    )
    _add_service(command)


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--service", metavar="SERVICE", help="name of the InferenceService (default: the model's name)"
    )
    parser.add_argument(
        "--cluster",
        metavar="FILE",
        type=Path,
        help="image, namespace, `serving` (default: cluster.yaml, else an example)",
    )


def _percent(text: str) -> int:
    if not is_small_integer(text) or int(text) > 99:
        raise argparse.ArgumentTypeError(f"invalid percentage {text!r}; give an integer from 0 to 99")
    return int(text)


def _check_options(args: argparse.Namespace) -> None:
    if not re.fullmatch(NAME, args.name):
        raise MaskcastError(
            f"--name: {args.name!r} is not the name of a model; use letters, digits, '.', '-' and '_'"
        )
    options, required, usage = USED_WITH.get(args.command, ((), "", ""))
    for option in options:
        if getattr(args, option) is not None and not getattr(args, required):
            raise MaskcastError(f"{args.command}: --{option} requires {usage}; add it, or omit --{option}")


def _deploy(args: argparse.Namespace) -> None:
    with missing_package_errors("models deploy"):
        pipelines_module("client.deploy").deploy(
            Registry(args.name),
            args.version,
            args.cluster,
            args.service,
            args.canary,
            dry_run=args.dry_run,
            wait=args.wait,
        )


def _undeploy(args: argparse.Namespace) -> None:
    with missing_package_errors("models undeploy"):
        pipelines_module("client.deploy").undeploy(args.name, args.cluster, args.service, canary=args.canary)


def _export(args: argparse.Namespace) -> str:
    from maskcast.registry.export import export
    from maskcast.registry.export_segmenter import export_segmenter
    from maskcast.registry.forecast_models import MaskerModel
    from maskcast.registry.loading import load_address, load_version, pipeline_of

    is_version = is_small_integer(args.version) or args.version in (CANDIDATE, CHAMPION, PREVIOUS)
    if not is_version and Path(args.version).is_dir():
        loaded = load_address(args.version, trained=True)
    else:
        loaded = load_version(Registry(args.name), args.version)
    if isinstance(loaded.model, MaskerModel):
        return export_segmenter(loaded, args.format, args.output)
    return export(pipeline_of(loaded), args.format, args.output)


def _verify(args: argparse.Namespace) -> int:
    from maskcast.registry.verify import verify

    verification = verify(Registry(args.name), args.version, args.repository or ".", args.clips)
    print(verification)
    return 0 if verification.equal else 1


def _decision_line(name: str, decision: Decision) -> str:
    before = f"version {decision.champion} is the previous one" if decision.champion else "it is the first"
    by = f"decision {decision.number} by {decision.user}"
    return f"{name}: version {decision.version} is the champion, {before} ({by})"
