from maskcast.data.clip_store.reader import ClipStore as ClipStore
from maskcast.data.images import resize_frames as resize_frames
from maskcast.errors import MaskcastError as MaskcastError
from maskcast.inference.session import Session as Session
from maskcast.inference.session import Step as Step
from maskcast.runner.run import run_stage as run_stage
from maskcast.serving.api import Pipeline as Pipeline
from maskcast.serving.api import Segmentation as Segmentation
from maskcast.serving.api import Segmenter as Segmenter
from maskcast.serving.api import load as load
from maskcast.serving.forecasts import Forecast as Forecast

__version__: str
