"""The command `serve`: serves a registered pipeline or masker over HTTP, with sessions over WebSocket."""

import argparse

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.registry.store import ADDRESS_HELP

DESCRIPTION = "Serves a pipeline or masker with the Open Inference Protocol (v2)."
EPILOG = """\
routes:
  GET  /v2/health/live, /v2/health/ready
         200 once the model is loaded
  GET  /v2, /version
         server; name, version and digest of the model, and commit of maskcast
  GET  /v2/models/NAME
         metadata of the model: inputs, outputs and classes
  POST /v2/models/NAME/infer
         input `frames` UINT8 (clips, frames, rows, columns, 3), output `masks`;
         for a masker the frames of one clip (frames, rows, columns, 3)
  WebSocket /v2/models/NAME/session
         a session: send frames of a video one by one, get the masks of each

NAME may be followed by /versions/VERSION. docs/serving.md has example requests.

example:
  maskcast serve --model models:/maskcast@champion --port 8080
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command until it is stopped; returns the exit code 0."""
    if args.sessions < 0 or not args.idle > 0:  # `not >`, to refuse NaN
        raise MaskcastError("--sessions, --idle: give 0 or more sessions, and more than 0 seconds")
    if not 0 <= args.port < 2**16:
        raise MaskcastError(f"--port: got {args.port}; give 0 to 65535 (0 is any free port)")
    from maskcast.registry.loading import load_servable, with_identity
    from maskcast.serving.application import served_model
    from maskcast.serving.origins import check_origins
    from maskcast.serving.server import listen, run_server

    check_origins(args.allow_origin)
    loaded = load_servable(args.model)
    if args.digest is not None and loaded.digest != args.digest:
        raise MaskcastError(
            f"{args.model}: digest mismatch: {loaded.digest}, expected {args.digest}; serve the registered model"
        )
    if args.registered is not None:
        loaded = with_identity(loaded, args.registered)
    sockets = listen(args.host, args.port)
    port = sockets[0].getsockname()[1]
    host = f"[{args.host}]" if ":" in args.host else args.host
    say(f"serving {loaded.title}, digest {loaded.digest[:12]}, on http://{host}:{port}")
    served, limits = served_model(loaded), (args.sessions, args.idle)
    run_server(served, sockets, *limits, args.allow_origin, args.host, access_log=args.access_log)
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    others = "the folder of a trained masker, or `sample`, the pipeline that comes with maskcast"
    parser.add_argument("--model", metavar="ADDRESS", required=True, help=f"{ADDRESS_HELP}, {others}")
    parser.add_argument(
        "--as", dest="registered", metavar="NAME/VERSION", help="name and version to serve a folder under"
    )
    parser.add_argument("--digest", help="expected digest of the model")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="allow web pages of another host, e.g. https://app.example.org (repeatable)",
    )
    parser.add_argument(
        "--sessions",
        metavar="N",
        type=int,
        default=8,
        help="maximum number of open sessions (default: %(default)s)",
    )
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        type=float,
        default=60,
        help="close a session after this time without a frame (default: %(default)s)",
    )
    parser.add_argument("--access-log", action="store_true", help="print a line for each request")
