"""A page of the clips that were left out of a clip store, each with a picture and the reason."""

from pathlib import Path

from maskcast.data.left_out import LeftOut
from maskcast.markup import concatenate, element, scrolling
from maskcast.report.page import INDEX, document


def write_left_out(found: LeftOut) -> Path | None:
    """Writes the page beside the pictures; returns its path, or None if there are no pictures."""
    if not found:
        return None
    lead = "What is wrong with clips that prepare_clips could not use, as far as it can be shown."
    clips = [
        element(
            "figure",
            element("h3", clip_id),
            scrolling(clip_id, element("img", alt=f"{clip_id}: {why}", src=name)),
            element("figcaption", why),
        )
        for clip_id, why, name in found.clips
    ]
    page = found.folder / INDEX
    sections = {"Clips": concatenate([element("p", lead), *clips])}
    page.write_text(document("Clips that are left out", sections, in_store=True), encoding="utf-8")
    return page
