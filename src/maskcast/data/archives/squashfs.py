"""Reads squashfs files with the program `unsquashfs`, without mounting them."""

import shutil
import subprocess
from pathlib import Path

from maskcast.data.archives.checks import Member, check_member, link_error
from maskcast.errors import MaskcastError
from maskcast.files import is_junk, walk_tree


def is_squashfs(path: Path) -> bool:
    """Whether a file is a squashfs file, judged by its contents."""
    with path.open("rb") as file:
        return file.read(4) == b"hsqs"


def unsquash(archive: Path, folder: Path) -> None:
    """Unpacks a squashfs file after a check of its listing, so that refused members are not written."""
    _check_listing(archive, folder, _run_unsquashfs(archive, folder, "-llnumeric"))
    _run_unsquashfs(archive, folder, "-no-xattrs", "-force")
    for junk in [Path(entry.path) for entry in walk_tree(folder) if is_junk(entry.name)]:
        shutil.rmtree(junk, ignore_errors=True) if junk.is_dir() else junk.unlink(missing_ok=True)


def _run_unsquashfs(archive: Path, folder: Path, *flags: str) -> str:
    program = shutil.which("unsquashfs")
    if program is None:
        raise MaskcastError(
            f"{archive}: reading squashfs needs the program unsquashfs, which was not found; install "
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
            raise link_error(archive, name.partition(" -> ")[0])
        member = Member(name, archive.stat().st_size, int(line.split(maxsplit=3)[2]), False, lambda: None)
        check_member(archive, member, folder, written)
        written += member.size
