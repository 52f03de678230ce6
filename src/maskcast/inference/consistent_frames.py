"""What consistent masks mean for forecasts: masks of a context must not depend on later frames.

Nothing here imports torch.
"""

CONTEXT_FRAMES = 11  # default of the stages that train and evaluate forecasters


def later_frames_text(
    consistent_frames: int | None, context_frames: int, *, section: str = "", masks_section: str = "generate_masks"
) -> str | None:
    """Returns the end of an error if masks of the context depend on later frames, else None.

    Args:
        consistent_frames: number of frames in which masks were made consistent; None for single frames.
        context_frames: number of context frames.
        section: section of params with the number of context frames; empty if unknown.
        masks_section: section of params with the number of consistent frames.
    """
    if consistent_frames is None or context_frames % consistent_frames == 0:
        return None
    context = f"the {context_frames} context frames" + (f" of {section}" if section else "")
    return (
        f"consistent_frames {consistent_frames}, so masks of {context} depend on later frames; "
        f"set {masks_section}.consistent_frames to {context_frames} or null"
    )
