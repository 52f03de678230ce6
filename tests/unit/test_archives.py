import io
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from maskcast.data.archives import checks as archive_checks
from maskcast.data.archives.unpack import is_archive, unpack
from maskcast.errors import MaskcastError


def make_zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".zst" else "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    if path.suffix == ".zst":
        content = path.read_bytes()
        path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))
    return path


def refuses(archive: Path, match: str) -> None:
    destination = archive.parent / "out"
    with pytest.raises(MaskcastError, match=match) as caught:
        unpack(archive, destination)
    assert str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)
    left = {p.name for p in archive.parent.iterdir()} - {archive.name}
    assert not left, f"left behind: {left}"


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.tar.zst"])
def test_members_are_unpacked_without_junk(tmp_path, name):
    members = {
        "train/video_0/image_0.png": b"zero",
        "train/empty": b"",
        "__MACOSX/train/._image_0.png": b"junk",
        "train/.DS_Store": b"junk",
        "train/._x": b"junk",
    }
    if name == "set.zip":
        archive = make_zip(tmp_path / name, **members)
    else:
        archive = make_tar(tmp_path / name, *((tarfile.TarInfo(n), c) for n, c in members.items()))
    assert is_archive(archive)
    unpack(archive, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"train/video_0/image_0.png": b"zero"}
    assert (tmp_path / "out/train/empty").read_bytes() == b""


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path, name):
    refuses(make_zip(tmp_path / "set.zip", **{"fine": b"1", name: b"2"}), "is outside of the folder")


@pytest.mark.parametrize("name", ["set.tgz", "set.tar.zst"])
def test_a_tar_member_that_leaves_the_folder_is_refused(tmp_path, name):
    refuses(make_tar(tmp_path / name, (tarfile.TarInfo("../evil"), b"1")), "'../evil' is outside of the folder")


def test_a_symlink_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refuses(tmp_path / "set.zip", "'link' is a link or device")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, "/etc/passwd"
    refuses(make_tar(tmp_path / "set.tgz", (info, b"")), "'odd' is a link or device")


def link_in_tar(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info, b""


def test_second_names_of_a_file_in_a_tar_are_files_of_their_own(tmp_path):
    folder = tmp_path / "set"
    (folder / "b").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"pixels")
    for name in ("b/a.png", "c.png"):
        os.link(folder / "a.png", folder / name)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(folder, ".")
        assert sum(info.islnk() for info in archive.getmembers()) == 2
    unpack(tmp_path / "set.tar", tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in files) == ["a.png", "b/a.png", "c.png"]
    assert {path.read_bytes() for path in files} == {b"pixels"}
    assert len({path.stat().st_ino for path in files}) == 3


@pytest.mark.parametrize("target", ["later", "../out.png", "._junk", "odd", "folder"])
def test_links_in_a_tar_to_what_is_no_file_before_them_are_refused(tmp_path, target):
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    members = [(folder, b""), (tarfile.TarInfo("._junk"), b"x"), link_in_tar("odd", target)]
    refuses(
        make_tar(tmp_path / "set.tgz", *members, (tarfile.TarInfo("later"), b"x")), "'odd' is a link or device"
    )


def test_links_in_a_tar_count_as_what_they_unpack_to(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_checks, "MIN_CHECKED_BYTES", 1 << 20)
    links = (link_in_tar(f"zeros_{i}", "zeros") for i in range(20))
    archive = make_tar(tmp_path / "set.tgz", (tarfile.TarInfo("zeros"), bytes(400_000)), *links)
    refuses(archive, "would unpack to more than 200 times")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb", "w") as m,
    ):
        for _ in range(128):
            m.write(bytes(1 << 20))
    refuses(tmp_path / "set.zip", "'bomb' would unpack to more than 200 times")


@pytest.mark.parametrize("name", ["set.tgz", "set.tar.zst"])
def test_a_bomb_of_many_members_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archive_checks, "MIN_CHECKED_BYTES", 1 << 20)
    members = ((tarfile.TarInfo(f"zeros_{i}"), bytes(400_000)) for i in range(20))
    refuses(make_tar(tmp_path / name, *members), "would unpack to more than 200 times")


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "set.zip", a=b"1" * 1000)
    monkeypatch.setattr(archive_checks.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 999})())
    refuses(archive, "free some")


def test_a_name_used_twice_is_refused(tmp_path):
    members = ((tarfile.TarInfo("same"), b"1"), (tarfile.TarInfo("same"), b"2"))
    refuses(make_tar(tmp_path / "set.tgz", *members), "'same' occurs twice")


def test_a_damaged_member_is_named(tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("frame", b"0123456789" * 100)
    content = bytearray(archive.read_bytes())
    content[200] ^= 0xFF
    archive.write_bytes(content)
    refuses(archive, "member 'frame' is damaged")


def test_a_tar_cut_short_is_refused(tmp_path):
    archive = make_tar(tmp_path / "set.tgz", (tarfile.TarInfo("noise"), bytes(range(256)) * 4000))
    archive.write_bytes(archive.read_bytes()[:2000])
    refuses(archive, "damaged")


def test_a_tar_of_zstd_cut_short_between_members_is_refused(tmp_path):
    """Its blocks are whole, and so is the tar that they hold, without its last members."""
    archive = make_tar(tmp_path / "set.tar.zst", *((tarfile.TarInfo(name), bytes(600)) for name in "abc"))
    content = zstandard.ZstdDecompressor().decompress(archive.read_bytes())
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    first = packer.compress(content[:1536]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    whole = first + packer.compress(content[1536:]) + packer.flush()
    for damaged in (first, whole[:-9], whole[:-5], whole[:-1], whole[:-3] + b"abc"):
        archive.write_bytes(damaged)
        assert is_archive(archive) == (
            len(damaged) < len(whole)
        )  # a wrong checksum is one of the first 10 KiB here
        refuses(archive, "is damaged")
    archive.write_bytes(whole)
    unpack(archive, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*"abc"}


def test_a_tar_of_zstd_may_have_several_frames_and_no_more_memory_than_others(tmp_path):
    """Parallel compressors write a frame for each part, and frames that hold no data."""
    tar = make_tar(tmp_path / "set.tar.zst", (tarfile.TarInfo("a"), b"1"), (tarfile.TarInfo("b"), bytes(3000)))
    content = zstandard.ZstdDecompressor().decompress(tar.read_bytes(), max_output_size=1 << 20)
    frames = [zstandard.compress(content[:2000]), zstandard.compress(content[2000:])]
    tar.write_bytes(b"\x50\x2a\x4d\x18\x02\0\0\0xy".join([b"", *frames]))
    unpack(tar, tmp_path / "out")
    assert (tmp_path / "out/b").read_bytes() == bytes(3000)
    tar.unlink()
    shutil.rmtree(tmp_path / "out")
    long = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=30)
    ).compressobj()
    (tmp_path / "long.tar.zst").write_bytes(long.compress(content) + long.flush())
    assert not is_archive(tmp_path / "long.tar.zst")
    refuses(tmp_path / "long.tar.zst", "needs too much memory; pack it again")


@pytest.mark.parametrize("alone", [False, True])
def test_a_part_of_a_split_zip_is_no_damaged_one(tmp_path, alone):
    """Without the other parts, the list of members tells that they begin in these."""
    archive = make_zip(tmp_path / "set.zip", a=b"1" * 100, b=b"2" * 100)
    if alone:
        content = bytearray(archive.read_bytes())
        content[content.index(b"PK\x01\x02") + 34] = 1  # number of the part where a member begins
        archive.write_bytes(content)
        refuses(archive, r"is one part of a split zip; join the parts \(`zip -s 0 set\.zip --out whole\.zip`")
        return
    archive.with_suffix(".z01").write_bytes(b"x")
    with pytest.raises(MaskcastError, match=r"is one part of a split zip; join the parts"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_password_is_refused(tmp_path):
    archive = make_zip(tmp_path / "set.zip", secret=b"x" * 50)
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    refuses(archive, "'secret' is encrypted")


def test_folders_of_windows_are_folders(tmp_path):
    marked = zipfile.ZipInfo("set\\marked")
    marked.external_attr = 0x10
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("set\\", b"")
        archive.writestr("set\\empty\\", b"")
        archive.writestr(marked, b"")
        archive.writestr("set\\marked\\a.png", b"a")
        archive.writestr("set\\b.png", b"b")
    unpack(tmp_path / "set.zip", tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.is_dir() for p in (tmp_path / "out").rglob("*")}
    assert found == {
        "set": True,
        "set/empty": True,
        "set/marked": True,
        "set/marked/a.png": False,
        "set/b.png": False,
    }
    assert (tmp_path / "out/set/marked/a.png").read_bytes() == b"a"


@pytest.mark.parametrize("lost", [1, 20, 40])
def test_a_zip_without_its_head_is_damaged(tmp_path, lost):
    path = make_zip(tmp_path / "set.zip", first=bytes(range(256)) * 2, second=b"2" * 9)
    path.write_bytes(path.read_bytes()[lost:])
    assert is_archive(path)
    refuses(path, "damaged|contains no files")


def test_an_archive_without_files_is_refused(tmp_path):
    refuses(make_zip(tmp_path / "set.zip"), "contains no files; pack the data set again")
    (tmp_path / "set.zip").unlink()
    refuses(make_zip(tmp_path / "set.zip", **{"only/folders/": b"", "__MACOSX/._x": b"junk"}), "contains no files")
    (tmp_path / "set.zip").unlink()
    refuses(make_tar(tmp_path / "set.tgz"), "contains no files")


def test_names_that_cannot_be_written_are_said(tmp_path):
    refuses(
        make_zip(tmp_path / "set.zip", **{"x" * 300: b"1"}),
        r"member 'x{60}\.\.\.' cannot be written \(File name too",
    )
    (tmp_path / "set.zip").unlink()
    refuses(make_zip(tmp_path / "set.zip", **{"d/" * 3000 + "x": b"1"}), "cannot be written")


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a", "a/"), ("a/b/c", "a/b")])
def test_a_file_where_a_folder_must_be_is_said(tmp_path, names):
    refuses(
        make_zip(tmp_path / "set.zip", **dict.fromkeys(names, b"1")),
        "is a file in one place and a folder in another",
    )


def test_an_archive_in_an_archive_is_said(tmp_path, capsys):
    inner = make_zip(tmp_path / "inner.zip", a=b"1").read_bytes()
    (tmp_path / "inner.zip").unlink()
    refuses(
        make_zip(tmp_path / "set.zip", **{"data/inner.zip": inner}), "contains only the archive 'data/inner.zip'; "
    )
    (tmp_path / "set.zip").unlink()
    unpack(make_zip(tmp_path / "set.zip", **{"data/inner.ZIP": inner, "README": b"read"}), tmp_path / "out")
    assert "archives inside it are not unpacked: 'data/inner.ZIP'\n" in capsys.readouterr().err
    assert (tmp_path / "out/data/inner.ZIP").read_bytes() == inner


@pytest.mark.parametrize("length", [12, 20, 60])
def test_a_compressed_tar_that_ends_in_its_head_is_no_archive(tmp_path, length):
    archive = make_tar(tmp_path / "set.tgz", (tarfile.TarInfo("noise"), bytes(range(256)) * 40))
    archive.write_bytes(archive.read_bytes()[:length])
    assert not is_archive(archive)
