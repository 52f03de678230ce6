"""Pictures of the clips that are left out, and why they are."""

from pathlib import Path

from PIL import Image

from maskcast.errors import PicturedError

LEFT_OUT = "left-out"  # folder in a clip store


class LeftOut:
    """The pictures in a clip store; nothing where there are none.

    A picture is written when it comes: of thousands of clips they would fill the memory.

    Args:
        store: folder of the store.

    Attributes:
        folder: of the pictures.
        clips: id of each clip, what is wrong with it, and the name of its picture.
    """

    def __init__(self, store: Path) -> None:
        self.folder = store / LEFT_OUT
        self.clips: list[tuple[str, str, str]] = []

    def __len__(self) -> int:
        return len(self.clips)

    def add(self, clip_id: str, error: PicturedError) -> None:
        """Takes what is wrong with a clip."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{len(self):04d}.png"
        Image.fromarray(error.picture_HWC).save(self.folder / name)
        self.clips.append((clip_id, str(error), name))
