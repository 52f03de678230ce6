"""This installation: its version and commit, and the files that come with maskcast outside the package.

In a clone these files (dvc.yaml, params.yaml, pipelines, components, recipes) are at the top; in a wheel they are
in the package, where ``setup.py`` puts them.
"""

import json
import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from maskcast import __version__
from maskcast.errors import MaskcastError
from maskcast.redaction import redacted

PACKAGE = Path(__file__).resolve().parent
IN_WHEEL = PACKAGE / "shipped"
CLONE = PACKAGE.parents[1]
GIT_S = 30  # seconds that Git may take
WITH_EXTRAS = "maskcast[train,data,cluster]"


def shipped_folder() -> Path:
    """Returns the folder of the files that come with maskcast.

    Raises:
        MaskcastError: they are missing, as in a container image.
    """
    for folder in (IN_WHEEL, CLONE):
        if has_pipelines(folder):
            return folder
    raise MaskcastError(
        f"{PACKAGE}: installed without the pipelines, as in a container image; use a `pip install` or a clone of "
        "maskcast"
    )


def comes_with_pipelines() -> bool:
    """Whether this installation has the pipelines, as a wheel and a clone have and a container image has not."""
    return has_pipelines(IN_WHEEL) or is_clone()


def is_clone() -> bool:
    """Whether this is a clone of maskcast, which has a Makefile."""
    return has_pipelines(CLONE)


def has_pipelines(folder: Path) -> bool:
    """Whether a folder has maskcast's own pipelines and components."""
    return (folder / "pipelines" / "cli.py").is_file() and (folder / "components" / "_image.py").is_file()


def commit() -> str:
    """Returns the commit of this code if known (from a wheel, image or clone), else an empty text.

    With local changes it ends in ``-dirty``.
    """
    if (IN_WHEEL / "COMMIT").is_file():
        return (IN_WHEEL / "COMMIT").read_text(encoding="utf-8").strip()
    if of_image := os.environ.get("MASKCAST_GIT_SHA", ""):
        return of_image
    if not (CLONE / ".git").exists():
        return ""
    # `--exclude=*`: describe by commit, not by tag.
    return git("-C", str(CLONE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def requirement() -> str | None:
    """Returns the line of a requirements.txt that installs this version; None if it is from a file or a clone."""
    try:
        text = distribution("maskcast").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    if text is None:
        return f"{WITH_EXTRAS}=={__version__}"
    origin = json.loads(text)
    url = redacted(origin["url"])
    if url.startswith("file:"):
        return None
    vcs = origin.get("vcs_info")
    return f"{WITH_EXTRAS} @ {vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else f"{WITH_EXTRAS} @ {url}"


def extra_for(module: str) -> str | None:
    """Returns the extra of maskcast that installs a module, e.g. ``train`` for torch, or None.

    None for modules of maskcast itself, which an extra names to combine others: such an import is a mistake.
    """
    if module.partition(".")[0] == "maskcast":
        return None
    try:
        requirements = "\n".join(requires("maskcast") or [])
    except PackageNotFoundError:
        return None
    package = re.escape(module.partition(".")[0].replace("_", "-"))
    match = re.search(rf"(?m)^{package}\b(?!-).*extra == ['\"](\w+)", requirements)
    return match and match[1]


def not_installed_message(command: str, module: str, extra: str) -> str:
    """Returns the error message of a command for a module that is missing, with the extra that installs it."""
    return f"{command}: needs {module}, which is not installed; run `pip install 'maskcast[{extra}]'`"


class GitError(MaskcastError):
    """Git failed.

    Attributes:
        reason: what it said.
        remedy: what to do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)  # both in args, so that it can be pickled
        self.reason, self.remedy = reason, remedy

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


def run_git(*words: str) -> str:
    """Returns Git's output.

    Raises:
        GitError: it failed, took too long or is missing.
    """
    name = f"git {words[0]}"
    try:
        result = subprocess.run(["git", *words], capture_output=True, text=True, check=False, timeout=GIT_S)
    except subprocess.TimeoutExpired:
        raise GitError(f"{name}: no answer after {GIT_S} s", f"see how long `{name}` takes here") from None
    except OSError as error:
        raise GitError(f"{name}: cannot be run ({error.strerror})", "install Git") from None
    if result.returncode == 0:
        return result.stdout.strip()
    # As in a container, where root reads the repository of another user.
    advised = re.search(r"git config --global --add safe\.directory .+", result.stderr)
    reason = next(iter(result.stderr.strip().splitlines()), f"exit code {result.returncode}")
    raise GitError(
        f"{name}: {reason}", f"run `{advised[0]}`" if advised else f"run `{name}` here and fix the cause"
    )


def git(*words: str) -> str:
    """Returns Git's output; empty if Git fails, takes too long or is missing."""
    try:
        return run_git(*words)
    except GitError:
        return ""


def in_repository() -> bool:
    """Whether the working directory is in a Git repository, which Git may be unable to read."""
    return any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))


def git_failure() -> GitError | None:
    """Returns why Git cannot read the repository of the working directory; None if it can, or if there is none."""
    try:
        run_git("rev-parse", "--git-dir")
    except GitError as error:
        return error if in_repository() else None
    return None


def version_and_commit() -> str:
    """Returns the version, and the commit if known."""
    known = commit()
    return f"{__version__}, commit {known}" if known else __version__
