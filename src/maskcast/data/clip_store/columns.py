"""The columns of a clip store: numbers of all clips in one array.

Columns, uint64: the end of the clip's line, its number of frames, the hash of its id, the index of its group.
"""

from array import array
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.table import id_hash
from maskcast.errors import MaskcastError


class ColumnWriter:
    """Collects the columns of a store, in about 120 bytes per clip."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._hashes: set[int] = set()

    def add(self, clip_id: str, end: int, num_frames: int, group: int) -> None:
        """Adds a clip.

        Raises:
            MaskcastError: if there is a clip with this id. Equal hashes count as equal ids: a collision of
                different ids is less likely than a broken disk.
        """
        own_hash = id_hash(clip_id)
        if own_hash in self._hashes:
            raise MaskcastError(f"clip id {clip_id!r} occurs twice; give every clip a unique id")
        self._hashes.add(own_hash)
        self._rows.extend((end, num_frames, own_hash, group))

    def write(self, path: Path) -> list[int]:
        """Writes the array and returns the number of clips of each group."""
        columns_4N = np.frombuffer(self._rows, "<u8").reshape(-1, 4).T
        head = {"descr": "<u8", "fortran_order": False, "shape": columns_4N.shape}
        with path.open("wb") as file:  # a memory map would crash the process on a full disk
            np.lib.format.write_array_header_1_0(file, head)
            file.writelines(column_N.tobytes() for column_N in columns_4N)
        return np.bincount(columns_4N[3].astype(np.int64)).tolist()
