"""The table of label formats; a format is imported when it is used."""

import importlib

from maskcast.data.labelling.formats.base import LabelFormat

PACKAGE = "maskcast.data.labelling.formats"
FORMATS = {  # by name: module and class, and a description
    "coco": ("coco:Coco", "COCO: polygons or RLE; CocoVID's videos and objects"),
    "youtube-vis": ("youtube_vis:YouTubeVis", "YouTube-VIS; SA-V, BURST: masks of objects by frame"),
    "png": ("png:Png", "a palette PNG per frame, pixel = class"),
    "mots": ("mots:MotsPng", "MOTS: a 16-bit PNG per frame, class * 1000 + object"),
    "mots-txt": ("mots_txt:MotsTxt", "MOTS: a text per clip, a line per object and frame"),
    "cityscapes": ("cityscapes:Cityscapes", "Cityscapes: labelIds and instanceIds"),
    "cvat-images": ("cvat_images:CvatImages", "CVAT for images 1.1: masks, polygons, boxes"),
    "cvat-video": ("cvat_video:CvatVideo", "CVAT for video 1.1: tracks; a task per clip"),
    "labelme": ("labelme:Labelme", "labelme: a JSON an image: polygons, circles, masks"),
    "label-studio": ("label_studio:LabelStudio", "predictions out, what people annotated in"),
    "label-studio-predictions": ("label_studio:LabelStudioPredictions", "the same, but predictions are read"),
}


def get_format(name: str) -> LabelFormat:
    """Returns the format with this name, a key of ``FORMATS``."""
    module, _, class_name = FORMATS[name][0].partition(":")
    return getattr(importlib.import_module(f"{PACKAGE}.{module}"), class_name)()
