"""The command `serve`: a registered pipeline behind HTTP."""

import argparse
from collections.abc import Sequence

from maskcast.commands.parser import command_parser
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.registry.store import ADDRESS_HELP

EPILOG = """\
routes:
  GET  /v2/health/live, /v2/health/ready
         200 once the model is loaded
  GET  /v2, /version
         server; name, version and digest of the model that answers
  GET  /v2/models/NAME
         the same, with inputs, outputs and classes
  POST /v2/models/NAME/infer
         input `frames` UINT8 (clips, frames, rows, columns, 3), output `masks`

NAME may be followed by /versions/VERSION. docs/serving.md has requests to copy.

example:
  maskcast serve --model models:/maskcast@champion --port 8080
"""


def serve(arguments: Sequence[str]) -> int:
    """Runs the command until it is stopped; returns the exit code 0."""
    parser = command_parser("serve", "Serves a registered pipeline by the Open Inference Protocol (v2).", EPILOG)
    add_arguments(parser)
    given = parser.parse_args(arguments)
    from maskcast.registry.loading import load_pipeline, registered_as
    from maskcast.serving.server import run_server

    loaded = load_pipeline(given.model)
    if given.digest is not None and loaded.digest != given.digest:
        raise MaskcastError(
            f"{given.model}: its digest is {loaded.digest} and not {given.digest}; serve what was registered"
        )
    if given.registered is not None:
        loaded = registered_as(loaded, given.registered)
    say(f"serving {loaded.title}, digest {loaded.digest[:12]}, on http://{given.host}:{given.port}")
    run_server(loaded, given.host, given.port)
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("--model", metavar="ADDRESS", required=True, help=ADDRESS_HELP)
    parser.add_argument("--as", dest="registered", metavar="NAME/VERSION", help="what a folder is registered as")
    parser.add_argument("--digest", help="refuse to serve a model with another digest")
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen; 0.0.0.0 for all (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
