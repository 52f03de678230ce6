"""The columns of a clip store: numbers of all clips in one array, written clip by clip with little memory.

Columns, uint64: the end of the clip's line, its number of frames, the hash of its id, the index of its group.
"""

import json
import struct
import tempfile
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.formats import COLUMNS_FILE, LINES_FILE
from maskcast.errors import MaskcastError

ROW = struct.Struct("<4Q")
BLOCK = 1 << 16  # clips


class ColumnWriter:
    """Collects the columns of a store in a temporary file.

    Args:
        root: folder of the store.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rows = tempfile.TemporaryFile(dir=root)  # noqa: SIM115 - open while the store is written
        self._count = 0

    def add(self, end: int, num_frames: int, own_hash: int, group: int) -> None:
        """Adds a clip."""
        self._rows.write(ROW.pack(end, num_frames, own_hash, group))
        self._count += 1

    def write(self) -> list[int]:
        """Writes ``clips.npy`` and returns the number of clips of each group; ``clips.jsonl`` must be complete.

        Raises:
            MaskcastError: if an id occurs twice.
        """
        self._rows.flush()
        rows_N4 = np.empty((0, 4), "<u8")
        if self._count:
            rows_N4 = np.memmap(self._rows, "<u8", "r", shape=(self._count, 4))
        head = {"descr": "<u8", "fortran_order": False, "shape": (4, self._count)}
        with (self._root / COLUMNS_FILE).open("wb") as file:  # a memory map would crash the process on a full disk
            np.lib.format.write_array_header_1_0(file, head)
            for column_N in rows_N4.T:
                for first in range(0, self._count, BLOCK):
                    file.write(column_N[first : first + BLOCK].tobytes())
        self._check_ids(rows_N4[:, 0], rows_N4[:, 2])
        return np.bincount(rows_N4[:, 3].astype(np.int64)).tolist()

    def close(self) -> None:
        """Closes the file."""
        self._rows.close()

    def _check_ids(self, ends_N: np.ndarray, hashes_N: np.ndarray) -> None:
        """Refuses equal hashes as equal ids: a collision of different ids is less likely than a broken disk."""
        ordered_N = np.sort(hashes_N)
        twice = np.flatnonzero(ordered_N[1:] == ordered_N[:-1])
        if not len(twice):
            return
        row = int(np.flatnonzero(hashes_N == ordered_N[twice[0]])[0])
        with (self._root / LINES_FILE).open("rb") as file:
            file.seek(int(ends_N[row - 1]) if row else 0)
            clip_id = json.loads(file.readline())["id"]
        raise MaskcastError(f"clip id {clip_id!r} occurs twice; give every clip a unique id")
