"""The table of raw layouts of labelled images. To add one, add a module and list it here."""

from typing import Annotated

from pydantic import Field

from maskcast.data.detection.sources.coco import CocoSource
from maskcast.data.detection.sources.label_files import LabelFilesSource
from maskcast.data.detection.sources.voc import VocSource

Source = Annotated[CocoSource | VocSource | LabelFilesSource, Field(discriminator="layout")]
