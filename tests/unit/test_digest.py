import os

from maskcast.data.clip_store.reader import ClipStore
from maskcast.digest import digest_tree, stamp_tree


def test_digest_sees_contents_and_names(tmp_path):
    (tmp_path / "index.json").write_text("not of a clip store")
    (tmp_path / "a").write_bytes(b"1")
    first = digest_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = digest_tree(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({first, second, digest_tree(tmp_path)}) == 3


def test_names_that_are_not_utf_8_are_digested(tmp_path):
    digests, stamps = set(), set()
    for name in (b"a\xe9", b"a\xe8"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(b"1")
        digests.add(digest_tree(tmp_path))
        stamps.add(stamp_tree(tmp_path))
        path.unlink()
    assert len(digests) == len(stamps) == 2


def test_digest_of_a_clip_store_is_the_stores(store: ClipStore):
    assert digest_tree(store.root) == store.digest


def test_a_stamp_sees_shards_of_a_clip_store_and_its_digest_does_not(store: ClipStore) -> None:
    digest, stamp = digest_tree(store.root), stamp_tree(store.root)
    os.utime(store.root / "labels-mask-00000.zst", ns=(1, 1))
    assert (digest_tree(store.root), stamp_tree(store.root) == stamp) == (digest, False)
