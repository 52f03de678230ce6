"""Checkpoints, from which a killed training run goes on exactly where it stopped."""

import json
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from maskcast.progress import say
from maskcast.reading import open_file, parsing, read_json
from maskcast.writing import sync

STATE = "checkpoint.pt"
OWNER = "fingerprint.json"
PERIOD_S = 60.0  # seconds after a checkpoint until the next one is due
MIN_RATIO = 100.0  # and at least so many times the seconds that writing it took


class Checkpoints:
    """A folder with one checkpoint, which is replaced as a whole.

    Args:
        folder: where the checkpoint lies; it survives the run (``runner.outputs.resume_dir``).
        fingerprint: identifies all that the run depends on (params, data, code); a checkpoint with another
            fingerprint is discarded.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self._written, self._took_s = time.monotonic(), 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint, or without any the start, is long ago."""
        return time.monotonic() - self._written >= max(PERIOD_S, MIN_RATIO * self._took_s)

    def load(self) -> dict[str, Any] | None:
        """Returns the last saved state, on the CPU, or None if there is no checkpoint to resume from.

        Raises:
            MaskcastError: the checkpoint cannot be read, or is damaged.
        """
        path, owner = self.folder / STATE, self.folder / OWNER
        if not path.exists() or not owner.exists():
            return None
        if not self._is_of_this_run(owner):
            say(f"{self.folder}: checkpoint of a run with other params, data or code; starting from scratch")
            return None
        with open_file(path, "checkpoint", self._remedy) as file, parsing(path, "a checkpoint", self._remedy):
            with zipfile.ZipFile(file) as archive:  # PyTorch writes a CRC-32 of each record, but does not check it
                if damaged := archive.testzip():
                    raise ValueError(f"damaged: checksum of {damaged} differs")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
            return {str(name): value for name, value in state.items()}

    def save(self, state: dict[str, Any]) -> None:
        """Writes ``state`` to a temporary file, flushes it to the disk and replaces the last one."""
        started = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._write_partial(STATE, lambda file: torch.save(state, file))
        owner = self.folder / OWNER
        if not owner.exists() or not self._is_of_this_run(owner):
            (self.folder / STATE).unlink(missing_ok=True)  # it belongs to another run
            text = json.dumps({"fingerprint": self.fingerprint}) + "\n"
            self._write_partial(OWNER, lambda file: file.write(text.encode())).replace(owner)
        partial.replace(self.folder / STATE)
        sync(self.folder)
        self._written = time.monotonic()
        self._took_s = self._written - started

    def restoring(self) -> AbstractContextManager[None]:
        """Returns a context for restoring a loaded state, in which a mismatch becomes an error of one line."""
        return parsing(self.folder / STATE, "a checkpoint of this training", self._remedy)

    def _write_partial(self, name: str, write: Callable[[BinaryIO], object]) -> Path:
        """Writes a temporary file and flushes it to the disk; renamed later, it is never seen half written."""
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            write(file)
        sync(partial)
        return partial

    @property
    def _remedy(self) -> str:
        return f"remove {self.folder} and run the same command again"

    def _is_of_this_run(self, owner: Path) -> bool:
        """Whether the file beside a checkpoint names the fingerprint of this run."""
        content = read_json(owner, "fingerprint of a checkpoint", self._remedy)
        with parsing(owner, "a fingerprint of a checkpoint", self._remedy):
            return bool(content["fingerprint"] == self.fingerprint)
