"""What the scores of evaluations are, by name; nothing here has slow imports."""

from collections.abc import Mapping

from maskcast.reading import pluralize

IOU = 0.5  # at which boxes are matched for the f1 of an image
MASKS = {
    "jaccard": "macro Jaccard (mIoU): one confusion matrix over all frames of all clips; mean over the classes "
    "that occur in truth or mask, background included",
    "jaccard_frames": "mean over frames of the Jaccard of each frame alone",
    "dice": "macro Dice, reduced like jaccard",
    "accuracy": "fraction of right pixels",
    "class_accuracy": "mean over classes of the fraction of their pixels that are right",
    "flicker": "fraction of pixels whose error changed since the frame before: became right, became wrong, or is "
    "wrong about another true class; within clips only",
    "change": "fraction of pixels whose mask changed since the frame before, right or wrong; within clips only",
    "mvc8": "video consistency: of the pixels whose true class stays the same through 8 frames, the fraction "
    "whose mask stays the same, too, right or wrong; mean over all such windows, as the scripts of VSPW count",
    "mvc16": "the same through 16 frames",
}
# Not part of `MASKS`, so that older evaluations without these scores stay comparable.
DAVIS = {
    "j": "region similarity J of DAVIS: the Jaccard of one class in one frame, 1 where neither truth nor mask has "
    "it; mean over the labelled frames of a clip, then over the objects of all clips: the classes but background "
    "that the clip's truth has",
    "f": "contour accuracy F of DAVIS, reduced like j: F measure of the contours' pixels, right if the other "
    "contour is within 0.008 of the frame's diagonal; a pixel without a label is of no class",
    "j_and_f": "J&F of DAVIS, the mean of j and f; the first and the last frame count, too",
}
FOREGROUND = {
    "jaccard_no_background": "the same as jaccard without the background, where it has one class beside it"
}
FORECASTS = {
    "jaccard_last": "macro Jaccard of the last forecast frame: one confusion matrix over that frame of all clips; "
    "mean over the classes that occur in truth or forecast, background included, absent classes left out",
    "jaccard_last_no_background": "the same without class 0",
    "jaccard_last_absent_zero": "the same as jaccard_last, but absent classes count as 0",
    "jaccard_last_absent_zero_no_background": "the same without class 0",
    "jaccard_h<n>": "the same as jaccard_last at frame n, counted from 1",
    "jaccard_mean": "mean of jaccard_h<n> over the forecast frames",
    "accuracy_last": "fraction of right pixels of the last forecast frame, background included",
    "dice_last": "macro Dice of the last forecast frame, reduced like jaccard_last",
    "calibration_error": "expected calibration error: distance of confidence and accuracy over all forecast "
    "pixels, 15 bins; left out for forecasters without confidence",
    "calibration_error_objects": "the same over the pixels that are forecast as an object",
    "coco_<name>": "COCO segmentation summary over all forecast frames; each object class of a frame is one "
    "instance, its score is its mean confidence (1 without confidence); left out where no such target exists",
    "frame_mse, frame_psnr": "mean squared error of forecast frames in [0, 1], over all pixels; its PSNR in dB",
    "seconds_per_clip": "wall time of reading the context and forecasting, per clip",
    "peak_memory_mib": "peak memory while forecasting: of the GPU, or resident memory of the whole process",
    "masker_<score>": "the masker's masks against the truth over all frames of the split, one confusion matrix",
}
FUTURES = {
    "jaccard_<last or mean>_<mean or best>_of_<n>": "of n futures that were drawn: the mean of their scores, and "
    "the score of the best one of each clip, by its mean over the forecast frames"
}
# Kept out of `FORECASTS`, which must equal those of older evaluations to compare with them.
FORECASTS_DAVIS = DAVIS | {
    "j": "region similarity J of DAVIS: the Jaccard of one object in one frame, 1 where neither truth nor "
    "forecast has it; mean over the forecast frames of a clip that have labels, then over the objects of all "
    "clips: the classes but background that the clip's true forecast frames have",
    "j_and_f": "J&F of DAVIS, the mean of j and f",
}
AMODAL = {
    "miou": "mean over images and maps of the mean Jaccard over the classes but background that have least_pixels "
    "true pixels there; a map without such a class is left out, so what is found in it costs nothing (system 3)",
    "miou_<map>, miou_single, miou_<hands>": "the same over one map; over images with an object in one map alone; "
    "over the others, by the word that the clips have for them, else interacting",
    "pooled": "mean over maps and classes but background of the Jaccard of one confusion matrix for each map, a "
    "class that occurs nowhere left out; here what is found where nothing is costs",
    "<score>_occluded, <score>_visible": "the same over the pixels of a map whose object is hidden by another, "
    "and over all other pixels",
}
VIDEOS = MASKS | {
    "<score>_base": "the same of the base, where its masks were given",
    "jaccard_gain, flicker_ratio": "jaccard less that of the base, and flicker over that of the base",
}
AMODAL_VIDEOS = VIDEOS | AMODAL | {"miou_gain, miou_occluded_gain": "the same less those of the base"}
MATTES = {
    "mad": "mean absolute difference of opacity, in thousandths",
    "dtssd": "root mean squared difference of the changes of opacity from frame to frame, in hundredths",
}
COCO = {
    "AP": "average precision: mean of the precision at 101 recalls, over ten IoU thresholds 0.50:0.05:0.95 and "
    "over the categories that have truth; at most 100 detections an image and category",
    "AP50, AP75": "AP at the IoU threshold 0.50 or 0.75 alone",
    "AP_small, AP_medium, AP_large": "AP of truths with an `area` below 32^2, up to 96^2 and above, in pixels",
    "AR1, AR10, AR100": "average recall: the highest recall with at most 1, 10 or 100 detections an image and "
    "category, mean over IoU thresholds and categories",
    "AR_small, AR_medium, AR_large": "AR100 by area",
}
DETECTIONS = COCO | {
    "images, truths, detections": "what was counted; crowds are among the truths, but may be found or not",
    "AP of an image": "AP as if the image were the only one, over the categories that have truth in it; empty "
    "where it has none",
    "f1 of an image": f"2 right / (2 right + false alarms + missed) at IoU {IOU:.2f}, counting detections from "
    "the score on at which F1 over all images is highest; 1 where nothing is to be found and nothing was",
}
# Keys of definitions that stand for several scores, or for none of an evaluation's metrics.
_EXPANDED = {
    "coco_<name>": tuple(f"coco_{name}" for name in ", ".join(COCO).split(", ")),
    "masker_<score>": (
        *("masker_jaccard", "masker_jaccard_no_background", "masker_accuracy", "masker_mad"),
        *("masker_jaccard_<map>", "masker_accuracy_<map>", "masker_mad_<map>"),
    ),
    "jaccard_<last or mean>_<mean or best>_of_<n>": (
        *("jaccard_last_mean_of_<n>", "jaccard_mean_mean_of_<n>"),
        *("jaccard_last_best_of_<n>", "jaccard_mean_best_of_<n>"),
    ),
    "miou_<map>, miou_single, miou_<hands>": ("miou_<map>",),
    "<score>_occluded, <score>_visible": ("miou_occluded", "miou_visible", "pooled_occluded", "pooled_visible"),
    "<score>_base": (),  # as of each baseline
    "AP of an image": (),
    "f1 of an image": (),
}


def condition(
    split: str, clips: int, context: str | None = None, context_frames: int = 0, horizon: int = 0
) -> str:
    """Returns what was scored, in a few words: `test, 8 clips, 11 true masks seen, 11 forecast`.

    Args:
        split: of the clips.
        clips: number of clips.
        context: kind of the masks that a forecaster saw, `true` or `generated`; None if nothing was forecast.
        context_frames: number of these masks.
        horizon: number of forecast frames.
    """
    facts = [split, pluralize(clips, "clip")]
    if context is not None:
        facts += [f"{pluralize(context_frames, f'{context} mask')} seen", f"{horizon} forecast"]
    return ", ".join(facts)


def score_names(definitions: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the names of the scores that definitions explain, as in the metrics of an evaluation.

    In a name `<n>` stands for a number, `<map>` for the name of a label map or group.
    """
    return tuple(name for key in definitions for name in _EXPANDED.get(key, key.split(", ")))
