"""Unpacks untrusted zip, tar and squashfs archives; tar also if gzip, bzip2, xz or zstd compressed it.

Members may not leave the folder, be links or fill the disk. The only links allowed are hard links in a tar to
earlier members. Junk files of operating systems are skipped. Members are streamed one by one into a sibling
folder, which is renamed when it is complete.
"""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path, PurePosixPath

from maskcast.data.archives.checks import (
    Member,
    TarMember,
    check_contents,
    check_disk,
    check_member,
    link_error,
    read_errors,
    write_errors,
)
from maskcast.data.archives.squashfs import is_squashfs, unsquash
from maskcast.data.archives.zstd import check_whole, is_zstd, open_zstd_tar
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.progress import track
from maskcast.writing import sync_file_systems

CHUNK = 1 << 20  # bytes
MSDOS_FOLDER = 0x10  # file attribute


def is_archive(path: Path) -> bool:
    """Whether a file is a zip, tar or squashfs archive, judged by its contents."""
    if not path.is_file():
        return False
    try:
        if zipfile.is_zipfile(path) or is_squashfs(path):
            return True
        with _open_tar(path):
            return True
    except Exception:  # tarfile decompresses the beginning, and its decoders may raise anything
        return False


def unpack(archive: Path, destination: Path) -> None:
    """Unpacks an archive into a new folder, which appears only when it is complete.

    Raises:
        MaskcastError: on an absolute path, `..`, any other link, a device, a name that is used twice or cannot be
            written, a password, damage, suspicious compression, too little disk space, or an archive without files
            or with only archives; names archive and member.
    """
    folder = destination.with_name(destination.name + ".unpacking")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with read_errors(archive):
            folder.mkdir(parents=True)
            if is_squashfs(archive):
                unsquash(archive, folder)
            elif zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    infos = opened.infolist()
                    _refuse_split(archive, infos)
                    check_disk(archive, sum(info.file_size for info in infos), folder)
                    _write(archive, _zip_members(archive, opened), folder, total=len(infos))
            else:
                if is_zstd(archive):
                    check_whole(archive)
                with _open_tar(archive) as opened_tar:
                    _write(archive, _tar_members(archive, opened_tar, folder), folder, total=None)
        check_contents(archive, folder)
        sync_file_systems(folder)
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open_tar(path: Path) -> AbstractContextManager[tarfile.TarFile]:
    return open_zstd_tar(path) if is_zstd(path) else tarfile.open(path, tarinfo=TarMember)


def _refuse_split(archive: Path, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Refuses the last part of a split zip, which alone has the list of the members."""
    if any(info.volume for info in infos) or archive.with_suffix(".z01").exists():
        raise MaskcastError(
            f"{archive}: is one part of a split zip; join the parts (`zip -s 0 {archive.name} --out whole.zip`, "
            "with all of them in one folder) and give that file"
        )


def _write(archive: Path, members: Iterable[Member], folder: Path, total: int | None) -> None:
    written = 0
    for member in track(members, f"unpacking {archive.name}", total):
        relative = _relative(archive, member.name)
        if relative is None:
            continue
        target = folder / relative
        with write_errors(archive, member.name):
            (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if member.is_folder:
                continue
            file = target.open("xb")
        with file:
            check_member(archive, member, folder, written)
            with read_errors(archive, member.name):
                source = member.open()
                assert source is not None
                with source:
                    shutil.copyfileobj(source, file, CHUNK)
        written += member.size


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise link_error(archive, info.filename)
        if info.flag_bits & 1:
            raise MaskcastError(
                f"{archive}: member {info.filename!r} is encrypted; give an archive without password"
            )
        # Windows writes backslashes, or marks folders only by an attribute.
        is_folder = info.filename.endswith(("/", "\\")) or bool(info.external_attr & MSDOS_FOLDER)
        yield Member(info.filename, info.compress_size, info.file_size, is_folder, partial(opened.open, info))


def _tar_members(archive: Path, opened: tarfile.TarFile, folder: Path) -> Iterator[Member]:
    packed = archive.stat().st_size
    sizes: dict[PurePosixPath, int] = {}  # of the members unpacked so far
    for info in opened:
        size, source = info.size, partial(opened.extractfile, info)
        if info.islnk():  # a hard link; DVC's cache gives files with equal contents one inode
            target = PurePosixPath(info.linkname)
            if target not in sizes:
                raise link_error(archive, info.name)
            size, source = sizes[target], partial((folder / target).open, "rb")
        elif not (info.isreg() or info.isdir()):
            raise link_error(archive, info.name)
        yield Member(info.name, packed, size, info.isdir(), source)
        relative = _relative(archive, info.name)
        if relative is not None and not info.isdir():
            sizes[relative] = size


def _relative(archive: Path, name: str) -> PurePosixPath | None:
    """Returns the path of a member below the folder, or None for junk."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise MaskcastError(
            f"{archive}: member {name!r} is outside of the folder; pack the archive again without it"
        )
    return None if not path.parts or any(is_junk(part) for part in path.parts) else path
