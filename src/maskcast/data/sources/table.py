"""The table of raw layouts: add a module and name it here."""

from typing import Annotated

from pydantic import Field

from maskcast.data.sources.annotations import AnnotationsSource
from maskcast.data.sources.clevrer import ClevrerSource
from maskcast.data.sources.competition import CompetitionSource
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.data.sources.green_screen import GreenScreenSource
from maskcast.data.sources.hand_lmdb import HandLmdbSource
from maskcast.data.sources.image_maps import ImageMapsSource
from maskcast.data.sources.pasted_hands import PastedHandsSource
from maskcast.data.sources.synthetic import SyntheticSource
from maskcast.data.sources.synthetic_hands import SyntheticHandsSource
from maskcast.data.sources.videos import VideosSource

Source = Annotated[
    CompetitionSource
    | ClevrerSource
    | FrameFoldersSource
    | AnnotationsSource
    | VideosSource
    | GreenScreenSource
    | SyntheticSource
    | SyntheticHandsSource
    | HandLmdbSource
    | ImageMapsSource
    | PastedHandsSource,
    Field(discriminator="layout"),
]
