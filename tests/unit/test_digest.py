from maskcast.data.clip_store.reader import ClipStore
from maskcast.digest import digest_tree


def test_digest_sees_contents_and_names(tmp_path):
    (tmp_path / "index.json").write_text("not of a clip store")
    (tmp_path / "a").write_bytes(b"1")
    first = digest_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = digest_tree(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({first, second, digest_tree(tmp_path)}) == 3


def test_digest_of_a_clip_store_is_the_stores(store: ClipStore):
    assert digest_tree(store.root) == store.digest
