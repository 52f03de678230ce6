"""The command `new`: creates the folder of a project that uses the installed package."""

import argparse
import os
import shlex
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

from maskcast import __version__
from maskcast.errors import MaskcastError
from maskcast.installation import WITH_EXTRAS, requirement, shipped_folder
from maskcast.redaction import redacted
from maskcast.runner.outputs import partial_path, remove

DESCRIPTION = """\
Creates the folder of a project, versioned by Git and DVC: dvc.yaml, params.yaml, cluster.yaml, requirements.txt,
a README, and the ignore files of Git and DVC. The code stays in the installed package."""
EPILOG = """\
Outside a Git repository it runs `git init`. Existing files are not replaced: an existing requirements.txt or
README.md is kept, lines are added to an existing .gitignore.

examples:
  maskcast new street
  maskcast new hands --pipeline hands
"""
PIPELINES = {  # by name: folder of its dvc.yaml and params.yaml
    "forecasting": "",
    **{
        name: f"recipes/{name.replace('_', '-')}/"
        for name in ("detection", "video", "few_labels", "hands", "photographs")
    },
}
# content of a folder from which `maskcast init` writes the params
INIT_FOLDERS = {"forecasting": "videos", "photographs": "photographs"}
README = """\
# {name}

A project of maskcast, pipeline `{pipeline}`. The stages are in `dvc.yaml`, their params in `params.yaml`.

```bash
pip install -r requirements.txt
dvc pull     # data, models and results, if the project has a DVC remote
dvc repro    # runs the stages that changed
```
"""
LOCAL_REQUIREMENT = f"""\
# Replace this by the address from which others install maskcast; here it was installed from a local file or clone.
# {WITH_EXTRAS} @ git+https://git.example.com/maskcast@v{__version__}
"""
# In a clone the modules are dependencies of DVC. An installed package is outside of the project, so the digests of
# its modules are computed in each run; stages whose modules are unchanged are still skipped.
CLONE_DEPS = "    deps: [src/maskcast, params.yaml]\n"
PROJECT_DEPS = "    always_changed: true # reads the installed package\n"
IGNORED = f"""\
.venv/
__pycache__/
*.egg-info/
.env
# what the pipeline writes (DVC versions it)
/code/
/data/*
!/data/*.dvc
/models/
/results/
/dvc_plots/
/mlflow.db*
/mlartifacts/
*.partial
*.partial.lock
*.resume
# what other commands write
/kfp-local/
/forecasts/
/masked/
/segmented/
/exported/
{"".join(f"/{name}.yaml{chr(10)}" for name in PIPELINES)}"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0.

    Raises:
        MaskcastError: one of the files exists or cannot be written, or Git is missing or fails.
    """
    folder: Path = args.folder
    files = _files(args.pipeline)
    if folder.is_symlink() and not folder.exists():
        raise MaskcastError(
            f"{folder}: is a link to {folder.readlink()}, which does not exist; create it, or remove the link"
        )
    if existing := [name for name in files if os.path.lexists(folder / name)]:  # includes broken links
        raise MaskcastError(f"{folder / existing[0]}: already exists; give a new folder, or one without this file")
    line, name = requirement(), folder.resolve().name
    own = {
        "README.md": README.format(name=name, pipeline=args.pipeline),
        "requirements.txt": LOCAL_REQUIREMENT if line is None else f"{line}\n",
    }
    files |= {name: text for name, text in own.items() if not os.path.lexists(folder / name)}
    _git("--version")  # before anything is written
    is_new = not folder.exists()
    place = folder
    if is_new:  # under a name of its own, as a neighbour's folder may have any other
        place = partial_path(folder.resolve().with_name(f"{name}.{uuid.uuid4().hex[:8]}"))
    try:
        for name, text in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text, encoding="utf-8")
        ignored = place / ".gitignore"
        lines = IGNORED.encode()
        before = ignored.read_bytes() if ignored.exists() else None  # in any encoding
        if before is None or lines not in before:  # a stopped command may have added them
            with ignored.open("ab") as file:
                file.write(lines if before is None else b"\n" + lines)
        if not _git("-C", str(place), "rev-parse", "--git-dir") and not _git("init", "--quiet", str(place)):
            raise MaskcastError(f"{folder}: `git init` failed; run it yourself to see its error")
        if is_new:
            place.rename(folder)
    except BaseException as error:  # also Ctrl-C and SIGTERM
        for created in [place] if is_new else [folder / name for name in files]:
            with suppress(OSError):  # a second try would fail on those that stay
                remove(created)
        if isinstance(error, OSError):
            raise MaskcastError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
        raise
    print(redacted(_next_steps(folder, args.pipeline, files.get("requirements.txt") == LOCAL_REQUIREMENT)))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the project; created if missing")
    parser.add_argument(
        "--pipeline",
        metavar="NAME",
        choices=[*PIPELINES],
        default="forecasting",
        help=f"{', '.join(PIPELINES)} (default: %(default)s)",
    )


def _files(pipeline: str) -> dict[str, str]:
    """Returns the contents of the files of a project, by path, without its .gitignore."""
    origin, folder = shipped_folder(), PIPELINES[pipeline]
    paths = {"dvc.yaml": f"{folder}dvc.yaml", "params.yaml": f"{folder}params.yaml"}
    paths |= {"cluster.yaml": "pipelines/cluster.yaml"}
    paths |= {name: name for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore")}
    files = {name: (origin / path).read_text(encoding="utf-8") for name, path in paths.items()}
    if CLONE_DEPS not in files["dvc.yaml"]:
        raise MaskcastError(f"{origin / paths['dvc.yaml']}: missing line `{CLONE_DEPS.strip()}`; restore it")
    return files | {"dvc.yaml": files["dvc.yaml"].replace(CLONE_DEPS, PROJECT_DEPS)}


def _git(*words: str) -> bool:
    """Runs git; returns whether it succeeded."""
    try:
        return subprocess.run(["git", *words], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        raise MaskcastError("new: needs Git, which is not installed; e.g. `apt-get install git`") from None


def _next_steps(folder: Path, pipeline: str, edit_requirements: bool) -> str:
    edit = "edit params.yaml: the address of your data"
    if pipeline in INIT_FOLDERS:
        edit = f"maskcast init ~/{INIT_FOLDERS[pipeline]} --force"
        edit += "    # params for your own data; without it, synthetic clips"
    lines = [
        f"created {folder} for the pipeline {pipeline}; next:",
        f"  cd {shlex.quote(str(folder))}",
        f"  {edit}",
    ]
    if edit_requirements:
        lines.append("  edit requirements.txt: the address from which others install maskcast")
    lines += ["  git add --all && git commit --message 'A project of maskcast'", "  dvc repro"]
    return "\n".join(lines)
