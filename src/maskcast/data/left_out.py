"""Pictures of clips that were left out, with the reasons."""

from pathlib import Path

from PIL import Image

from maskcast.errors import IllustratedError

LEFT_OUT = "left-out"  # folder in a clip store


class LeftOut:
    """The pictures of left-out clips in a clip store; the folder is only created if there are any.

    Each picture is written at once, because thousands would fill the memory.

    Args:
        store: folder of the store.

    Attributes:
        folder: folder of the pictures.
        clips: id of each clip, the reason, and the file name of its picture.
    """

    def __init__(self, store: Path) -> None:
        self.folder = store / LEFT_OUT
        self.clips: list[tuple[str, str, str]] = []

    def __len__(self) -> int:
        return len(self.clips)

    def add(self, clip_id: str, error: IllustratedError) -> None:
        """Adds a clip with its error."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{len(self):04d}.png"
        Image.fromarray(error.picture_HWC).save(self.folder / name)
        self.clips.append((clip_id, str(error), name))
