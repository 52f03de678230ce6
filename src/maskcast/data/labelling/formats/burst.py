"""BURST's `all_classes.json`: sequences, their tracks, and for each labelled frame the masks of visible tracks."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskcast.data.coco.records import Records
from maskcast.reading import short_repr


def is_burst(content: Any) -> bool:
    """Whether parsed JSON has BURST's format."""
    sequences = content.get("sequences") if isinstance(content, dict) else None
    first = sequences[0] if isinstance(sequences, list) and sequences else None
    return isinstance(first, dict) and {"annotated_image_paths", "track_category_ids"} <= first.keys()


def burst_lists(file: Path, content: Mapping[str, Any]) -> tuple[Records, Records, Records]:
    """Returns videos, categories and annotations in the form of YouTube-VIS; call it inside ``reading.parsing``.

    Raises:
        MaskcastError: the numbers of frames and masks differ, or a mask belongs to no track.
    """
    sequences = Records(f"{file}: sequences", content["sequences"])
    videos = [
        {
            "id": n,
            "height": sequence["height"],
            "width": sequence["width"],
            "file_names": [
                f"{sequence['dataset']}/{sequence['seq_name']}/{path}"
                for path in sequence["annotated_image_paths"]
            ],
        }
        for n, sequence in enumerate(sequences.records)
    ]
    tracks = [track for n in range(len(videos)) for track in _tracks(sequences, n)]
    return (
        Records(sequences.where, videos),
        Records(f"{file}: categories", content["categories"]),
        Records(f"{file}: tracks", [{"id": n, **track} for n, track in enumerate(tracks)]),
    )


def _tracks(sequences: Records, n: int) -> Iterator[dict[str, Any]]:
    """Yields the tracks of a sequence as YouTube-VIS annotations."""
    sequence = sequences.records[n]
    size, frames, categories = (
        [sequence["height"], sequence["width"]],
        sequence["segmentations"],
        sequence["track_category_ids"],
    )
    if len(frames) != len(sequence["annotated_image_paths"]):
        expected = len(sequence["annotated_image_paths"])
        sequences.fail(n, f"segmentations must be one per annotated image, {expected}, not {len(frames)}; fix it")
    for track in {track for visible in frames for track in visible} - categories.keys():
        sequences.fail(n, f"track {short_repr(track)} of segmentations is missing in track_category_ids; add it")
    for track, category in categories.items():
        masks = [
            {"size": size, "counts": visible[track]["rle"]} if track in visible else None for visible in frames
        ]
        yield {"video_id": n, "category_id": category, "track_id": int(track), "segmentations": masks}
