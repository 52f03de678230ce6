"""The command `check-params`: whether the params of all stages of a pipeline are valid, before one runs."""

import argparse
import sys
from contextlib import suppress

from maskcast.commands.parser import add_pipeline
from maskcast.diagnostics.conflicts import conflicts, window_warnings
from maskcast.diagnostics.unread_sections import UnreadSections
from maskcast.errors import MaskcastError, one_line
from maskcast.params import Params, load_params_file
from maskcast.progress import say
from maskcast.runner.dvc_calls import hidden_stage, params_of, read_calls, sources_of

DESCRIPTION = """\
Checks the params of every stage of a pipeline, in a second and without its data. A stage checks its own params
only when it starts, so a mistake in the last stage would otherwise surface after all others have run.

Each faulty section gets one line, which names the first wrong key and the allowed values; the exit code is then 2.
Sections must also match each other: an encoder that is pretrained for another model is an error. So is a section
that no stage reads if its name is like that of one that is read. Other unread sections, and forecast windows that
differ between sections, are warnings. `dvc repro` begins with this check, and `maskcast pipeline compile` also
runs it."""
EPILOG = """\
PIPELINE is a folder with a dvc.yaml and its params file. `maskcast dry-run` tries the stages, too.

examples:
  maskcast check-params
  maskcast check-params recipes/video
"""


def run(given: argparse.Namespace) -> int:
    """Runs the command; returns 0 if all params are valid, else 2.

    Raises:
        MaskcastError: the pipeline is not found, or has no stage of maskcast.
    """
    dvc_file = given.pipeline / "dvc.yaml"
    calls, others = read_calls(dvc_file)
    params: dict[str, Params] = {}
    errors: dict[str, None] = {}  # without duplicates: stages may share a missing file
    for entry, command in others.items():
        if stage := hidden_stage(command):
            errors[
                f"{dvc_file}: {entry}: `cmd` calls {stage} in a way that is not understood; let it begin with "
                "`maskcast`, a path of it, or `python -m maskcast`"
            ] = None
    if not calls and not errors:
        raise MaskcastError(
            f"{dvc_file}: has no stage whose `cmd` is `maskcast STAGE ...`; pass a pipeline's folder"
        )
    for entry, call in calls.items():
        try:
            _, params[entry] = params_of(given.pipeline, call)
        except MaskcastError as error:
            errors[one_line(error)] = None
    files = {entry: given.pipeline / call.params_file for entry, call in calls.items()}
    errors |= {f"{files[entry]}: {text}": None for entry, text in conflicts(params, sources_of(calls))}
    warnings = [f"{files[entry]}: {text}" for entry, text in window_warnings(params)]
    for file in dict.fromkeys(files.values()):
        read = [call.name for entry, call in calls.items() if files[entry] == file]
        with suppress(MaskcastError):  # reported above
            unread = UnreadSections.of(load_params_file(file), file, read)
            errors |= dict.fromkeys(unread.errors)
            warnings += unread.warnings
    for line in warnings:
        say(f"warning: {line}")
    print("".join(f"error: {line}\n" for line in errors), end="", file=sys.stderr)
    return 2 if errors else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
