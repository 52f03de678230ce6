"""LMDB, a key-value file for many small files. It is read without locks, after a check that it is complete."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import lmdb

from maskcast.errors import MaskcastError

MAP_SIZE = 1 << 40  # maximum size of a written LMDB; only address space, the file is as large as its content
BATCH = 1000  # number of writes per transaction


def read_value(path: Path, key: str) -> bytes:
    """Returns the value of a key in an LMDB.

    Args:
        path: the file, or the folder with ``data.mdb``.
        key: ASCII, as all tools write it.

    Raises:
        MaskcastError: if the LMDB or the key does not exist, or the LMDB is damaged.
    """
    try:
        with _open_cached(path.resolve()).begin(buffers=False) as transaction:
            value = transaction.get(key.encode("ascii"))
    except (lmdb.Error, UnicodeEncodeError) as error:
        raise MaskcastError(f"{path}: key {key!r} cannot be read ({error}); copy the LMDB again") from None
    if value is None:
        raise MaskcastError(f"{path}: key {key!r} not found; fix the list, or add the sample")
    return bytes(value)


def count_keys(path: Path) -> int:
    """Returns the number of keys of an LMDB; raises `MaskcastError` like `read_value`."""
    try:
        return int(_open_cached(path.resolve()).stat()["entries"])
    except lmdb.Error as error:
        raise MaskcastError(f"{path}: cannot be read ({error}); copy the LMDB again") from None


def write_lmdb(path: Path, items: Iterator[tuple[str, bytes]]) -> int:
    """Writes keys and values into a new LMDB, a folder with ``data.mdb``; returns their number.

    Raises:
        MaskcastError: on a duplicate or invalid key, or a full disk.
    """
    count = 0
    try:
        with lmdb.open(str(path), map_size=MAP_SIZE, lock=False) as environment:
            transaction = environment.begin(write=True)
            for key, value in items:
                if not transaction.put(key.encode("ascii"), value, overwrite=False):
                    raise MaskcastError(f"{path}: key {key!r} occurs twice; make the image paths unique")
                count += 1
                if count % BATCH == 0:
                    transaction.commit()
                    transaction = environment.begin(write=True)
            transaction.commit()
    except UnicodeEncodeError as error:
        raise MaskcastError(f"{path}: key {error.object!r} is not ASCII; rename the image") from None
    except lmdb.Error as error:
        raise MaskcastError(f"{path}: cannot be written ({error}); check the free disk space") from None
    return count


@lru_cache(maxsize=8)
def _open_cached(path: Path) -> lmdb.Environment:
    """Opens an LMDB once per process, read-only: no lock file is made, and no writer is waited for."""
    file = path / "data.mdb" if path.is_dir() else path
    if not file.is_file():
        raise MaskcastError(f"{path}: LMDB not found; give the file, or the folder with data.mdb")
    try:
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
        )
    except (lmdb.Error, OSError) as error:
        raise MaskcastError(f"{path}: not an LMDB that can be read ({error}); copy it again") from None
    # Accessing a page beyond the end of a cut file would kill the process (SIGBUS), so the size is checked here.
    expected_size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if (size := file.stat().st_size) < expected_size:
        environment.close()
        raise MaskcastError(f"{file}: truncated: {size} of {expected_size} bytes; copy it again")
    return environment
