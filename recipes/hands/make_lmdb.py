"""Makes data like ETH's subset of InterHand2.6M of simulated hands: LMDBs, lists with boxes, tables of ids.

    python recipes/hands/make_lmdb.py OUT [--train 1000] [--val 100] [--unlabeled 1000] [--hidden 100] [--size 160]

Writes ``OUT/interhand.lmdb``, ``segm_train_val_mp.lmdb``, ``datalist_*.pt`` and ``path2id_*.pt``, which
`layout: lmdb` reads as they are, and ``params.yaml``, which says so. It is there whole, or not at all.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from maskcast.data.lmdb_files import write_lmdb
from maskcast.data.sources.synthetic_hands import SyntheticHandsSource
from maskcast.errors import one_line_errors
from maskcast.progress import track
from maskcast.runner.outputs import atomic_outputs
from maskcast.simulator.hand_pictures import HandPicture, simulate_hands

IMAGES = "data/InterHand2.6M/images/"
LISTS = {"train": "train_mp", "val": "val_mp", "unlabeled": "train_complete", "hidden": "stud_test"}
PARAMS = "prepare_clips: {source: {layout: lmdb}, height: 128, width: 128}\n"  # reads this data set
LEFT_SHIFT = 16  # left hands have the class ids 17 to 32


def make(folder: Path, counts: dict[str, int], size: int, seed: int) -> None:
    """Writes the data set into a new folder, pictures of ``size`` x ``size``."""
    listing = SyntheticHandsSource(**counts).listing(folder, height=size, width=size, seed=seed)
    lists: dict[str, list[dict[str, Any]]] = {split: [] for split in LISTS}
    ids: dict[str, dict[str, int]] = {"train": {}, "val": {}}
    masks: list[tuple[str, bytes]] = []

    def images() -> Iterator[tuple[str, bytes]]:
        for number, clip in enumerate(track(listing.clips, "simulating hands")):
            stem = f"{clip.split}/Capture{number % 7}/cam400{number % 3}/image{number:06d}"
            picture = simulate_hands(clip.meta["seed"], hands=clip.meta["hands"], height=size, width=size)
            lists[clip.split].append(_entry(stem, clip.meta["hands"], picture, number))
            if clip.split in ids:
                ids[clip.split][stem] = number
                masks.extend(_masks(number, picture))
            yield f"{IMAGES}{stem}.jpg", _encoded(".jpg", picture.frame_HWC[..., ::-1])

    folder.mkdir()
    write_lmdb(folder / "interhand.lmdb", images())
    write_lmdb(folder / "segm_train_val_mp.lmdb", iter(masks))
    lists["unlabeled"] = lists["train"] + lists["unlabeled"]  # the complete list includes the labelled images
    for split, name in LISTS.items():
        torch.save(lists[split], folder / f"datalist_{name}.pt")
    for split, table in ids.items():
        torch.save(table, folder / f"path2id_{split}.pt")
    (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")


def _entry(stem: str, hands: str, picture: HandPicture, number: int) -> dict[str, Any]:
    rows, columns = np.nonzero(picture.left_HW | picture.right_HW)
    low, high = (np.array([edge(columns), edge(rows)], float) for edge in (np.min, np.max))
    side = 1.25 * float((high - low + 1).max())
    corner = (low + high + 1) / 2 - side / 2
    return {
        "img_path": f"./{IMAGES}{stem}.jpg",
        "bbox": np.array([*corner, side, side], np.float32),
        "hand_type": "interacting" if hands == "apart" else hands,
        "capture": str(number % 7),
        "cam": f"400{number % 3}",
        "frame": str(number),
    }


def _masks(number: int, picture: HandPicture) -> Iterator[tuple[str, bytes]]:
    left_HW = np.where(picture.left_HW, picture.left_HW + LEFT_SHIFT, 0).astype(np.uint8)
    for key, mask_HW in (("l", left_HW), ("r", picture.right_HW)):
        yield f"{number}__{key}", _encoded(".png", np.repeat(mask_HW[..., None], 3, -1))


def _encoded(form: str, image: np.ndarray) -> bytes:
    done, content = cv2.imencode(form, image)
    assert done
    return content.tobytes()


def main() -> None:
    """Makes the data set that the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for split, count in {"train": 1000, "val": 100, "unlabeled": 1000, "hidden": 100}.items():
        parser.add_argument(f"--{split}", type=int, default=count)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts = {split: getattr(args, split) for split in LISTS}
    if min(counts.values()) < 0 or not any(counts.values()):
        parser.error(f"{counts}: counts are 0 or more, and not all of them 0")
    partial = args.out.with_name(args.out.name + ".partial")
    with atomic_outputs({"out": args.out}, {"out": partial}):
        make(partial, counts, args.size, args.seed)
    print(f"wrote {sum(counts.values())} images: {args.out}")


if __name__ == "__main__":
    with one_line_errors():
        main()
