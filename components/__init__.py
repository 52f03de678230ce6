"""KFP components: one shim per stage, no logic. A shim hands its artifacts' paths to ``run_stage``.

`evaluate_many`, which compares the maskers of a grid, is a command and no stage, and is imported by its module.
"""

from components.evaluate import evaluate as evaluate
from components.evaluate_detector import evaluate_detector as evaluate_detector
from components.evaluate_video import evaluate_video as evaluate_video
from components.fetch_dataset import fetch_dataset as fetch_dataset
from components.find_learning_rate import find_learning_rate as find_learning_rate
from components.finetune_forecaster import finetune_forecaster as finetune_forecaster
from components.generate_masks import generate_masks as generate_masks
from components.predict import predict as predict
from components.prepare_clips import prepare_clips as prepare_clips
from components.prepare_detection import prepare_detection as prepare_detection
from components.pretrain_encoder import pretrain_encoder as pretrain_encoder
from components.pretrain_forecaster import pretrain_forecaster as pretrain_forecaster
from components.register_detector import register_detector as register_detector
from components.register_models import register_models as register_models
from components.register_segmenter import register_segmenter as register_segmenter
from components.train_detector import train_detector as train_detector
from components.train_masker import train_masker as train_masker
