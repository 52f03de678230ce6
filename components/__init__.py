"""KFP components: one thin function per stage, which passes the paths of its artifacts to ``run_stage``.

`evaluate_many`, which compares the maskers of a grid, is a command rather than a stage; it imports the command's
module.
"""

from components.evaluate import evaluate
from components.evaluate_detector import evaluate_detector
from components.evaluate_video import evaluate_video
from components.fetch_dataset import fetch_dataset
from components.find_learning_rate import find_learning_rate
from components.finetune_forecaster import finetune_forecaster
from components.generate_masks import generate_masks
from components.predict import predict
from components.prepare_clips import prepare_clips
from components.prepare_detection import prepare_detection
from components.pretrain_encoder import pretrain_encoder
from components.pretrain_forecaster import pretrain_forecaster
from components.register_detector import register_detector
from components.register_models import register_models
from components.register_segmenter import register_segmenter
from components.train_detector import train_detector
from components.train_masker import train_masker

__all__ = [
    "evaluate",
    "evaluate_detector",
    "evaluate_video",
    "fetch_dataset",
    "find_learning_rate",
    "finetune_forecaster",
    "generate_masks",
    "predict",
    "prepare_clips",
    "prepare_detection",
    "pretrain_encoder",
    "pretrain_forecaster",
    "register_detector",
    "register_models",
    "register_segmenter",
    "train_detector",
    "train_masker",
]
