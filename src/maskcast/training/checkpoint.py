"""What a killed training run leaves behind, and how it goes on exactly where it stopped."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from maskcast.progress import say
from maskcast.reading import opened, parsing, read_json

STATE = "checkpoint.pt"
OWNER = "fingerprint.json"


class Checkpoints:
    """One checkpoint in a folder, replaced as a whole.

    Args:
        folder: survives the run; see ``runner.outputs.resume_dir``.
        fingerprint: names everything the run depends on (params, data); a checkpoint of another fingerprint
            is discarded, never mixed in.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self) -> dict[str, Any] | None:
        """Returns the last saved state on the CPU, or None if there is none to go on from.

        Raises:
            MaskcastError: what is there cannot be read.
        """
        path, owner = self.folder / STATE, self.folder / OWNER
        if not path.exists() or not owner.exists():
            return None
        if not self._own(owner):
            say(f"{self.folder}: belongs to a run with other params, data or plugins; starting anew")
            return None
        with opened(path, "checkpoint", self._remedy) as file, parsing(path, "a checkpoint", self._remedy):
            state = torch.load(file, map_location="cpu", weights_only=True)
            return {str(name): value for name, value in state.items()}

    def save(self, state: dict[str, Any]) -> None:
        """Writes ``state`` beside the last one, flushes it to the disk and puts it in its place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._written(STATE, lambda file: torch.save(state, file))
        owner = self.folder / OWNER
        if not owner.exists() or not self._own(owner):
            (self.folder / STATE).unlink(missing_ok=True)  # of another run
            text = json.dumps({"fingerprint": self.fingerprint}) + "\n"
            self._written(OWNER, lambda file: file.write(text.encode())).replace(owner)
        partial.replace(self.folder / STATE)

    def fitting(self) -> AbstractContextManager[None]:
        """Returns a context for taking up a loaded state: what does not fit becomes one line."""
        return parsing(self.folder / STATE, "a checkpoint of this training", self._remedy)

    def _written(self, name: str, write: Callable[[BinaryIO], object]) -> Path:
        """Writes a file beside its place, so that a half of it is never there, and flushes it to the disk."""
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        return partial

    @property
    def _remedy(self) -> str:
        return f"remove {self.folder} and run the same command again"

    def _own(self, owner: Path) -> bool:
        """Whether the file beside a checkpoint names this run."""
        content = read_json(owner, "fingerprint of a checkpoint", self._remedy)
        with parsing(owner, "a fingerprint of a checkpoint", self._remedy):
            return bool(content["fingerprint"] == self.fingerprint)
