"""A page of the clips that were left out of a clip store, each with a picture and the reason."""

from pathlib import Path

from maskcast.data.left_out import LeftOut
from maskcast.markup import concatenate, element, scrolling
from maskcast.report.page import INDEX, document


def write_left_out(left_out: LeftOut) -> Path | None:
    """Writes the page beside the pictures; returns its path, or None if there are no pictures."""
    if not left_out:
        return None
    lead = "Clips that prepare_clips could not use, with pictures of what is wrong."
    clips = [
        element(
            "figure",
            element("h3", clip_id),
            scrolling(clip_id, element("img", alt=f"{clip_id}: {reason}", src=name)),
            element("figcaption", reason),
        )
        for clip_id, reason, name in left_out.clips
    ]
    page = left_out.folder / INDEX
    sections = {"Clips": concatenate([element("p", lead), *clips])}
    page.write_text(document("Clips that are left out", sections, in_store=True), encoding="utf-8")
    return page
