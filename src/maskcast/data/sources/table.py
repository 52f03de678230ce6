"""The table of raw layouts. To add one, add a module and list it here, or write a plugin."""

from typing import TYPE_CHECKING

from maskcast.data.sources.annotations import AnnotationsSource
from maskcast.data.sources.base import SourceConfig
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
from maskcast.plugins import with_plugins

_Own = (
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
    | PastedHandsSource
)
if TYPE_CHECKING:
    Source = _Own
else:
    Source = with_plugins(_Own, "maskcast.layouts", SourceConfig, "layout")
