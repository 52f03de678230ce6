"""Unpacks zip, tar and squashfs archives that nobody has vouched for.

Members may neither leave the folder nor be links, and may not fill the disk; what operating systems left behind
is passed over. Members are streamed one by one into a sibling folder that gets its name when all are there.
A squashfs file is read through the program `unsquashfs`, without being mounted.
"""

import gzip
import lzma
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from maskcast.errors import MaskcastError
from maskcast.junk import is_junk
from maskcast.progress import track

MAX_RATIO = 200  # unpacked bytes per packed byte; label images reach about 100
RATIO_FREE = 100 << 20  # bytes that may be unpacked at any ratio
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class _Member:
    name: str
    packed: int  # bytes in the archive; that of the whole archive where its members are packed together
    size: int  # bytes once unpacked
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Tells whether a file is a zip, tar or squashfs archive, by its contents."""
    return path.is_file() and (zipfile.is_zipfile(path) or _is_squashfs(path) or tarfile.is_tarfile(path))


def unpack(archive: Path, destination: Path) -> None:
    """Unpacks an archive into a new folder, which appears whole or not at all.

    Raises:
        MaskcastError: naming archive and member, on an absolute path, `..`, a link, a device, a name used twice, a
            password, damage, suspicious compression, or too little room on the disk.
    """
    folder = destination.with_name(destination.name + ".unpacking")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with _reading(archive):
            folder.mkdir(parents=True)
            if _is_squashfs(archive):
                _unsquash(archive, folder)
            elif zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    infos = opened.infolist()
                    _check_disk(archive, sum(info.file_size for info in infos), folder)
                    _write(archive, _zip_members(archive, opened), folder, total=len(infos))
            else:
                with tarfile.open(archive) as opened_tar:
                    _write(archive, _tar_members(archive, opened_tar), folder, total=None)
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(archive: Path, members: Iterable[_Member], folder: Path, total: int | None) -> None:
    written = 0
    for member in track(members, f"unpacking {archive.name}", total):
        relative = _relative(archive, member.name)
        if relative is None:
            continue
        target = folder / relative
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise MaskcastError(f"{archive}: member {member.name!r} occurs twice; pack the archive again")
        _check_member(archive, member, folder, written)
        with _reading(archive, member.name):
            source = member.open()
            assert source is not None
            with source, target.open("xb") as file:
                shutil.copyfileobj(source, file, CHUNK)
        written += member.size


def _check_member(archive: Path, member: _Member, folder: Path, written: int) -> None:
    """Refuses a member before it is unpacked; both formats enforce the size that a member declares."""
    for unpacked, packed in ((member.size, member.packed), (written + member.size, archive.stat().st_size)):
        if unpacked > RATIO_FREE and unpacked > MAX_RATIO * max(packed, 1):
            raise MaskcastError(
                f"{archive}: member {member.name!r} would unpack to more than {MAX_RATIO} times its packed size, "
                "like a zip bomb; if you trust it, unpack it yourself and give the folder"
            )
    _check_disk(archive, member.size, folder)


def _check_disk(archive: Path, size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise MaskcastError(
            f"{archive}: needs {size / 1e9:.1f} GB at {folder} where {free / 1e9:.1f} GB are free; free some"
        )


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _not_plain(archive, info.filename)
        if info.flag_bits & 1:
            raise MaskcastError(f"{archive}: member {info.filename!r} has a password; give an archive without")
        yield _Member(info.filename, info.compress_size, info.file_size, info.is_dir(), partial(opened.open, info))


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[_Member]:
    packed = archive.stat().st_size
    for info in opened:
        if not (info.isreg() or info.isdir()):
            raise _not_plain(archive, info.name)
        yield _Member(info.name, packed, info.size, info.isdir(), partial(opened.extractfile, info))


def _is_squashfs(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"hsqs"


def _unsquash(archive: Path, folder: Path) -> None:
    """Unpacks a squashfs file; it is listed first, so that what is refused is not written."""
    _check_listing(archive, folder, _run_unsquashfs(archive, folder, "-llnumeric"))
    _run_unsquashfs(archive, folder, "-no-xattrs", "-force")
    for junk in [path for path in folder.rglob("*") if is_junk(path.name)]:
        shutil.rmtree(junk, ignore_errors=True) if junk.is_dir() else junk.unlink(missing_ok=True)


def _run_unsquashfs(archive: Path, folder: Path, *flags: str) -> str:
    program = shutil.which("unsquashfs")
    if program is None:
        raise MaskcastError(
            f"{archive}: a squashfs file needs the program unsquashfs, which is not there; install "
            "squashfs-tools, or unpack it and give the folder"
        )
    command = [program, "-no-progress", *flags, "-dest", str(folder), str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise MaskcastError(f"{archive}: cannot be unpacked ({said[-1]}); copy the archive again from its origin")
    return done.stdout


def _check_listing(archive: Path, folder: Path, listing: str) -> None:
    """Refuses links, devices and too many bytes; a line is `-rw-r--r-- 0/0  123 2026-11-21 10:00 folder/name`."""
    written = 0
    for line in listing.splitlines():
        kind, name = line[:1], line.partition(f"{folder}/")[2]
        if not name or kind == "d":
            continue
        if kind != "-":
            raise _not_plain(archive, name.partition(" -> ")[0])
        member = _Member(name, archive.stat().st_size, int(line.split(maxsplit=3)[2]), False, lambda: None)
        _check_member(archive, member, folder, written)
        written += member.size


def _relative(archive: Path, name: str) -> PurePosixPath | None:
    """Returns the path of a member below the folder, None for junk."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise MaskcastError(
            f"{archive}: member {name!r} points out of the folder; pack the archive again without it"
        )
    return None if not path.parts or any(is_junk(part) for part in path.parts) else path


def _not_plain(archive: Path, name: str) -> MaskcastError:
    return MaskcastError(
        f"{archive}: member {name!r} is a link or device; pack the files themselves (tar -h, zip)"
    )


@contextmanager
def _reading(archive: Path, member: str | None = None) -> Iterator[None]:
    """Turns what the decoders raise on damage into one line."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, EOFError) as error:
        place = f"{archive}: member {member!r}" if member else f"{archive}"
        raise MaskcastError(f"{place} is damaged ({error}); copy the archive again from its origin") from error
    except (NotImplementedError, RuntimeError) as error:  # how zipfile reports a method it does not know
        raise MaskcastError(f"{archive}: cannot be unpacked here ({error}); pack it again with deflate") from error
