"""Checks of Python and packages: installed versions, and the extra that installs missing packages."""

import platform
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from maskcast.diagnostics.checks import CheckResult, State
from maskcast.diagnostics.dvc_remote import has_pipeline
from maskcast.errors import one_line
from maskcast.installation import PACKAGE, GitError, comes_with_pipelines, git_failure, is_clone, run_git
from maskcast.installation import git as git_output
from maskcast.reading import pluralize

EXTRAS: dict[str, tuple[State, str]] = {  # state of a missing package, and the extra's purpose
    "": ("missing", "all"),
    "train": ("missing", "training and forecasts"),
    "data": ("missing", "videos, S3 and DVC"),
    "server": ("warning", "MLflow's server and pages"),
    "export": ("warning", "`maskcast models export`"),
    "cluster": ("warning", "`maskcast pipeline`"),
}
# What an image without torchvision leaves out (docs/images.md).
ON_TORCHVISION = frozenset({"torchvision", "huggingface-hub", "segmentation-models-pytorch"})


def python() -> Iterator[CheckResult]:
    """Yields a row on the version and path of Python."""
    yield CheckResult(
        "Python", "ok", f"{platform.python_version()}, {sys.executable}, {platform.platform(terse=True)}"
    )


def packages() -> Iterator[CheckResult]:
    """Yields rows on the packages of each extra, compared with the versions that maskcast requires."""
    try:
        requirements, installed = requires("maskcast") or [], version("maskcast")
    except PackageNotFoundError:
        yield CheckResult(
            "maskcast", "missing", "importable, but not installed", "pip install 'maskcast[train,data]'"
        )
        return
    met, unmet = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for requirement in map(Requirement, requirements):
        for extra in EXTRAS:
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.marker is None and extra:
                continue
            try:
                found = version(requirement.name)
            except PackageNotFoundError:
                unmet[extra].append(f"{requirement.name} is missing")
                continue
            if requirement.specifier.contains(found, prereleases=True):
                met[extra].append(f"{requirement.name} {found}")
            else:
                unmet[extra].append(f"{requirement.name} {found}, not {requirement.specifier}")
    for extra, (state, use) in EXTRAS.items():
        name, listed = f"maskcast[{extra}]" if extra else f"maskcast {installed}", ", ".join(met[extra])
        if unmet[extra]:
            remedy = f"pip install --upgrade 'maskcast[{extra or 'train,data'}]'"
            if is_clone():
                remedy = f"`make install`, or {remedy}"
            if not comes_with_pipelines():  # an image, which has no pip
                remedy = "use an image that has them (docs/images.md) for models and commands that need them"
                if {line.removesuffix(" is missing") for line in unmet[extra]} <= ON_TORCHVISION:
                    state = "warning"
            yield CheckResult(name, state, f"{', '.join(unmet[extra])} (for {use})", remedy)
        else:
            yield CheckResult(name, "ok", listed)


def video() -> Iterator[CheckResult]:
    """Yields a row on the FFmpeg libraries that come with PyAV, after decoding a frame of the shipped video."""
    try:
        import av

        from maskcast.data.video_files.frames import read_video

        read_video(PACKAGE / "samples/sample.mp4", [0])
    except Exception as error:  # another version of PyAV may raise anything
        remedy = "pip install --upgrade 'maskcast[data]'"
        yield CheckResult("video files", "missing", f"cannot be read: {one_line(error)}", remedy)
        return
    encoder = "libx264" in av.codecs_available
    found = f"FFmpeg {getattr(av, 'ffmpeg_version_info', '')} of PyAV {av.__version__}"
    if encoder:
        yield CheckResult("video files", "ok", f"{found}, with H.264")
    else:
        yield CheckResult(
            "video files", "warning", f"{found} cannot encode H.264", "pip install --force-reinstall av"
        )


def git() -> Iterator[CheckResult]:
    """Yields a row on Git, which DVC and the lineage of runs need."""
    if not has_pipeline():
        yield CheckResult("Git", "ok", "not needed: no dvc.yaml and no repository here or above")
        return
    if shutil.which("git") is None:
        yield CheckResult("Git", "missing", "is not installed", "install Git, e.g. `apt-get install git`")
        return
    number = git_output("--version").removeprefix("git version ")
    if failure := git_failure():
        yield CheckResult("Git", "missing", f"{number}; {failure.reason}", failure.remedy)
        return
    commit = git_output("rev-parse", "--short=12", "HEAD")
    if not git_output("rev-parse", "--git-dir"):
        yield CheckResult(
            "Git", "missing", f"{number}; this folder is not a repository, which DVC needs", "git init"
        )
    elif not commit:
        yield CheckResult(
            "Git", "warning", f"{number}; no commit yet for runs to record", "git add --all && git commit"
        )
    else:
        try:
            changes = len(run_git("status", "--porcelain", "--untracked-files=no").splitlines())
        except GitError as error:
            yield CheckResult("Git", "warning", f"{number}, commit {commit}; {error.reason}", error.remedy)
            return
        changed = f", {pluralize(changes, 'file')} changed" if changes else ""
        yield CheckResult("Git", "ok", f"{number}, commit {commit}{changed}")
