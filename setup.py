"""What a wheel holds beside the package: the pipelines, what `maskcast new` copies, and the commit.

All else is in pyproject.toml. A clone has these files where they are: an editable install adds none.
"""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
INTO = "maskcast/shipped"  # maskcast.installation reads it
COMMIT = "COMMIT"  # in there, and at the top of a source distribution
PATTERNS = (
    *("dvc.yaml", "params.yaml", "recipes/*/dvc.yaml", "recipes/*/params.yaml"),
    *(".dvc/config", ".dvc/.gitignore", ".dvcignore"),
    *("components/*.py", "pipelines/**/*.py", "pipelines/cluster.yaml"),
)


class BuildWithProject(build_py):
    """Adds the files to the package as it is built."""

    def run(self) -> None:
        """Builds the package, then copies the files into it."""
        super().run()
        if self.editable_mode:
            return
        into = Path(self.build_lib, INTO)
        for name in self.shipped():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(ROOT / name), str(into / name))
        (into / COMMIT).write_text(commit(), encoding="utf-8")

    def get_source_files(self) -> list[str]:
        """Returns what a source distribution holds, too."""
        return [*super().get_source_files(), *self.shipped()]

    def shipped(self) -> list[str]:
        """Returns the files, as paths below the top of the repository."""
        found = {pattern: [path for path in ROOT.glob(pattern) if path.is_file()] for pattern in PATTERNS}
        if missing := [pattern for pattern, paths in found.items() if not paths]:
            raise SystemExit(f"{ROOT}: has no {', '.join(missing)}; build from a clone of the repository")
        return sorted({path.relative_to(ROOT).as_posix() for paths in found.values() for path in paths})


class SourceWithCommit(sdist):
    """Adds the commit, which a wheel that is built from the source distribution has to know."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Fills the folder that is packed."""
        super().make_release_tree(base_dir, files)
        Path(base_dir, COMMIT).write_text(commit(), encoding="utf-8")


def commit() -> str:
    """Returns the commit, `-dirty` after it where files differ from it; nothing where nothing tells."""
    if not (ROOT / ".git").exists():
        return (ROOT / COMMIT).read_text(encoding="utf-8") if (ROOT / COMMIT).is_file() else ""
    # `--exclude=*`: tags are no part of the commit's name.
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


setup(cmdclass={"build_py": BuildWithProject, "sdist": SourceWithCommit})
