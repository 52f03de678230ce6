"""Flags that several commands share."""

import argparse
import os
from pathlib import Path

from maskcast.commands.parser import add_number
from pipelines import PIPELINES

PROJECT_CLUSTER_FILE = Path("cluster.yaml")  # the name that `maskcast new` uses


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """Declares the flags for a pipeline and its values."""
    parser.add_argument(
        "--pipeline",
        metavar="NAME",
        choices=sorted(PIPELINES),
        default="forecasting",
        help=f"{', '.join(sorted(PIPELINES))} (default: %(default)s)",
    )
    parser.add_argument(
        "--params",
        metavar="FILE",
        type=Path,
        default=Path("params.yaml"),
        help="params file, one section per stage (default: %(default)s)",
    )
    parser.add_argument(
        "-S",
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one key, e.g. -S train_masker.training.epochs=3; may be repeated",
    )


def add_grid(parser: argparse.ArgumentParser) -> None:
    """Declares the flags for a grid of variants."""
    parser.add_argument(
        "--grid", metavar="FILE", type=Path, help="run the variants of this grid file and compare their maskers"
    )
    add_number(parser, "--jobs", 1, 1, "number of variants to run in parallel")


def cluster_file() -> Path:
    """Returns the default cluster file: the project's own, else the example."""
    return PROJECT_CLUSTER_FILE if PROJECT_CLUSTER_FILE.is_file() else example_file()


def example_file() -> Path:
    """Returns the example cluster file of maskcast, relative to the working directory."""
    return Path(os.path.relpath(Path(__file__).with_name("cluster.yaml")))


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Declares the flag for the cluster file."""
    parser.add_argument(
        "--cluster",
        metavar="FILE",
        type=Path,
        default=cluster_file(),
        help="image, namespace, resources, names of secrets (default: %(default)s)",
    )
