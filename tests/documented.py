"""The commands in the bash blocks of README.md and docs, and what becomes of each: run by a test, or why not."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = "tests/integration/test_documented_commands.py"
# What a command begins with, and the test that runs it, or why none does; the first that fits counts.
RULES = {
    r"make (install|check|test|test-fast|lock|image|clean|help)": "the gate runs make, test_image makes the image",
    r"make repro": "tests/integration/test_dvc.py",
    r"maskcast doctor": "tests/integration/test_doctor.py",
    r"maskcast new": "tests/integration/test_wheel.py",
    r"python3 -m venv": "tests/integration/test_wheel.py",
    r"maskcast check-params": "tests/unit/test_check_params.py",
    r"maskcast dry-run": "tests/integration/test_dry_run.py",
    r"maskcast init": "tests/integration/test_your_data.py",
    r"dvc repro prepare_clips": "tests/integration/test_your_data.py",
    r"(dvc|git) ": "tests/integration/test_dvc.py",
    r"python recipes/hands/(make_lmdb|list_to_jsonl|real)": "tests/unit/test_hands_recipe.py",
    r"maskcast prepare_clips .*like-interhand": "tests/unit/test_hands_recipe.py",
    r"maskcast write-lmdb": "tests/unit/test_write_lmdb.py",
    r"python recipes/": "tests/integration/test_recipes.py",
    r"python benchmarks/": "tests/integration/test_benchmarks.py",
    r"maskcast pipeline (setup|preflight|submit|watch|status|logs)": "tests/integration/test_runbook.py",
    r"maskcast pipeline (cancel|schedule)": "tests/integration/test_submit.py",
    r"maskcast pipeline run-local .*--docker": "tests/integration/test_image.py",
    r"maskcast grid": "tests/integration/test_grid.py",
    r"maskcast pipeline run-local": "tests/integration/test_parity.py",
    r"maskcast pipeline compile": RUN,
    r"(sbatch|qsub|bsub) ": "needs a cluster's manager; tests/integration/test_job_scripts.py runs the scripts",
    r"maskcast segment /dev/video": "needs a camera; one over HTTP is tests/unit/test_segment_command.py",
    r"maskcast segment (beach|~/holidays)": "tests/integration/test_your_data.py",
    r"maskcast segment .*--alpha": "tests/unit/test_segment_command.py",
    r"maskcast models export models/": "tests/contract/test_streaming.py",
    r"maskcast evaluate-many": "tests/unit/test_evaluate_many.py",
    r"maskcast prepare_clips .*davis": "tests/integration/test_recipes.py",
    r"maskcast serve": "tests/integration/test_serving.py",
    r"maskcast models (--name \S+ )?export": "tests/unit/test_export.py",
    r"maskcast models (--name \S+ )?download": "tests/integration/test_models_download.py",
    r"maskcast models (--name \S+ )?(promote|compare|evaluate|rollback|lineage|list)": (
        "tests/integration/test_team_servers.py"
    ),
    r"maskcast models (--name \S+ )?(un)?deploy": "tests/integration/test_deploy.py",
    r"maskcast forecast s3:": "needs a bucket; fetching from one is tests/integration/test_s3.py",
    r"maskcast (labels |train-masker .*data/labelled)": "tests/integration/test_labels.py",
    r"maskcast find_learning_rate": "tests/unit/test_find_learning_rate.py",
    r"maskcast evaluate_video .*data/mine": "tests/integration/test_evaluate_video.py",
    r"maskcast ": RUN,
    r"python -c .*(create_user|grant_user_permission)": "tests/integration/test_team_servers.py",
    r"docker/env\.sh": "tests/contract/test_servers.py",
    r"docker/build\.sh": "tests/integration/test_image.py",
    r"mlflow (server|models serve)": "tests/integration/mlflow_server.py",
    r"(docker|kubectl|curl) ": "needs a Docker Engine, a cluster or a server that runs",
    r"hf download ": "needs the hub; tests/unit/test_pretrained_weights.py has one of its own",
    r"pip wheel": "tests/integration/test_wheel.py",
    r"(uv )?pip install|python -m pip install": "needs a package index",
    r"source ": "every command of RUN comes after it",
    r"(export|read|ln|cp|mv|mkdir|cat|open|xdg-open|unzip|wget) ": "prepares what comes next",
}
SEPARATORS = {"&&", "||", "|", ";", "&"}


@dataclass(frozen=True)
class Command:
    """A command of the documentation.

    Attributes:
        file: the Markdown file.
        folder: where it runs, relative to the root: `cd` counts.
        words: its words, without comments and redirections.
        redirected: the file that what it prints goes to.
    """

    file: str
    folder: str
    words: tuple[str, ...]
    redirected: str | None = None

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def fate(self) -> str | None:
        """The test that runs it, or why none does; None: nobody has said."""
        return next((fate for start, fate in RULES.items() if re.match(start, f"{self} ")), None)


def commands() -> list[Command]:
    """Returns every command of README.md and docs."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [command for file in files for command in _commands_of(file.relative_to(ROOT).as_posix())]


def _commands_of(file: str) -> Iterator[Command]:
    text = (ROOT / file).read_text(encoding="utf-8")
    for block in re.findall(r"^ *```(?:bash|sh|shell|console)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        folder = Path()
        for line in block.replace("\\\n", " ").splitlines():
            for words, redirected in _split(line):
                if words[0] == "cd":
                    folder = Path(_normal(folder / words[1]))
                elif words:
                    yield Command(file, folder.as_posix(), words, redirected)


def _normal(folder: Path) -> str:
    """Returns a folder below the root without its `..`."""
    return (ROOT / folder).resolve().relative_to(ROOT).as_posix()


def _split(line: str) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Yields the words of each command in a line, and the file that takes what it prints."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if token not in SEPARATORS:
            words.append(token)
            continue
        if words[:1] == ["!"]:
            words = words[1:]
        if words and words[0].endswith("=$"):  # name=$(command)
            words = words[2:-1]
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # NAME=value command
            words = words[1:]
        redirected = None
        if ">" in words:
            redirected = words[words.index(">") + 1]
            words = words[: words.index(">")]
        if words:
            yield tuple(words), redirected
        words = []
