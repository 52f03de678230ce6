"""Masks in COCO files: polygons, and run lengths as list or string, checked and converted to one form.

Legend: N masks, L characters, V values.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from maskcast.data.coco.records import Records

MAX_DISTANCE = 4  # times the longer side of the image: a farther point belongs to another image
CHUNK = 4096  # masks whose run lengths are decoded at once, about 50 MB
FORMS = "a list of polygons [[x1, y1, x2, y2, x3, y3, ...], ...] or RLE {size: [height, width], counts: ...}"


def compressed_masks(records: Records, sizes_N2: np.ndarray) -> list[dict[str, Any]]:
    """Returns the masks of `segmentation` as compressed RLE.

    Args:
        records: Records with the key `segmentation`.
        sizes_N2: Height and width of each record's image.

    Raises:
        MaskcastError: A mask has none of the three forms, or does not fit its image.
    """
    masks = [_with_whole_size(mask) for mask in records.column("segmentation")]
    to_check = []
    for n, (mask, (height, width)) in enumerate(zip(masks, sizes_N2.tolist(), strict=True)):
        if isinstance(mask, list):
            _check_polygons(records, n, mask, max(height, width))
        elif not isinstance(mask, dict) or not {"size", "counts"} <= mask.keys():
            records.fail(n, f"segmentation must be {FORMS}; fix it")
        elif mask["size"] != [height, width]:
            records.fail(
                n, f"its RLE is of size {mask['size']}, its image [{height}, {width}]; resize one of them"
            )
        elif isinstance(mask["counts"], list):
            _check_run_lengths(records, n, mask["counts"], height * width)
        else:
            to_check.append(n)
    for start in range(0, len(to_check), CHUNK):
        _check_compressed(records, to_check[start : start + CHUNK], sizes_N2.prod(axis=1))
    compressed = set(to_check)
    return [
        mask if n in compressed else rle.segmToRle(mask, width, height)
        for n, (mask, (height, width)) in enumerate(zip(masks, sizes_N2.tolist(), strict=True))
    ]


def _with_whole_size(mask: Any) -> Any:
    """Returns a mask; the size of an RLE as integers if it is written so: `[50.0, 60.0]`."""
    size = mask.get("size") if isinstance(mask, dict) else None
    if not isinstance(size, list) or not any(isinstance(side, float) and side.is_integer() for side in size):
        return mask
    whole = [int(side) if isinstance(side, float) and side.is_integer() else side for side in size]
    return mask | {"size": whole}


def _check_polygons(records: Records, n: int, polygons: list[Any], longer_side: int) -> None:
    if not polygons:
        records.fail(n, f"segmentation is empty; write {FORMS}, or null or no record if nothing is visible")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            size = len(polygon) if isinstance(polygon, list) else "no"
            records.fail(n, f"a polygon has {size} numbers; expected x and y of at least 3 points")
    values = np.array(list(chain.from_iterable(polygons)))
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        records.fail(n, "a polygon has values that are not finite numbers; fix it")
    # The decoder walks along edges: points that are far away make it slow.
    if np.abs(values).max() > MAX_DISTANCE * longer_side:
        records.fail(n, "a point of a polygon is far outside its image; fix it")


def _check_run_lengths(records: Records, n: int, counts: list[Any], pixels: int) -> None:
    if not all(type(count) is int and count >= 0 for count in counts):
        records.fail(n, "counts of its RLE must be integers of at least 0; fix them")
    if sum(counts) != pixels:
        records.fail(n, f"counts of its RLE sum to {sum(counts)}, its image has {pixels} pixels; encode it again")


def _check_compressed(records: Records, rows: Sequence[int], pixels_N: np.ndarray) -> None:
    texts = [records.records[n]["segmentation"]["counts"] for n in rows]
    for n, encoded in zip(rows, texts, strict=True):
        # Characters of the encoding are 48 to 111; the last character of a value is below 80.
        if not isinstance(encoded, str) or not re.fullmatch("[0-o]*[0-O]", encoded):
            records.fail(n, "counts of its RLE is not a COCO run-length string; encode it again")
    totals_N, valid_N = sum_run_lengths(texts)
    wrong_N = (totals_N != pixels_N[rows]) | ~valid_N
    if wrong_N.any():
        first = int(wrong_N.argmax())
        n = rows[first]
        encoded = (
            f"sum to {totals_N[first]}, its image has {pixels_N[n]} pixels" if valid_N[first] else "go below 0"
        )
        records.fail(n, f"counts of its RLE {encoded}; encode it again")


def sum_run_lengths(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Decodes COCO's compressed run lengths of all masks at once.

    A value consists of little-endian characters of 5 bits (48 + bits, with bit 6 set on all but the last), in
    two's complement. From the fourth value on, it is the difference to the value two before (cocoapi,
    common/maskApi.c, rleFrString).

    Args:
        texts: N non-empty strings of characters 48..111, each ending in one of 48..79.

    Returns:
        The sum of the run lengths of each mask, (N,) int64, and whether none is negative, (N,) bool.
    """
    bits_L = np.frombuffer("".join(texts).encode("ascii"), np.uint8).astype(np.int64) - 48
    last_V = np.flatnonzero(bits_L < 32)
    first_V = np.r_[0, last_V[:-1] + 1]
    size_V = last_V - first_V + 1
    shift_L = 5 * (np.arange(bits_L.size) - np.repeat(first_V, size_V))
    value_V = np.add.reduceat((bits_L & 31) << np.minimum(shift_L, 60), first_V)
    negative_V = (bits_L[last_V] & 16) > 0
    value_V -= negative_V.astype(np.int64) << np.minimum(5 * size_V, 60)

    stop_N = np.searchsorted(last_V, np.cumsum([len(text) for text in texts]) - 1) + 1
    start_N = np.r_[0, stop_N[:-1]]
    position_V = np.arange(value_V.size) - np.repeat(start_N, stop_N - start_N)
    # Differences are accumulated separately over odd and even places; the first value stands alone.
    chain_V = 3 * np.repeat(np.arange(len(texts)), stop_N - start_N) + np.where(
        position_V == 0, 0, 2 - position_V % 2
    )
    order_V = chain_V.argsort(kind="stable")
    sum_V = np.cumsum(value_V[order_V])
    head_V = np.r_[True, np.diff(chain_V[order_V]) > 0]
    before = np.r_[0, sum_V[:-1]][head_V]
    run_V = np.empty_like(value_V)
    run_V[order_V] = sum_V - np.repeat(before, np.diff(np.r_[np.flatnonzero(head_V), head_V.size]))
    return np.add.reduceat(run_V, start_N), np.minimum.reduceat(run_V, start_N) >= 0
