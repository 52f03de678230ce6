"""Statistics of a masker's training data, to detect distribution shift (``inference/distribution_shift.py``)."""

from maskcast.data.clip_store.frame_index import spread
from maskcast.inference.distribution_shift import Reference, colour_features, mean_std, mean_std_by_key
from maskcast.inference.predictions import MeanConfidence, quantise
from maskcast.training.tasks.segmentation import FrameTask, WindowTask

MAX_CLIPS = 100  # enough for two digits


def reference_of(task: FrameTask | WindowTask) -> Reference:
    """Measures training clips and the masker's results on validation clips, at most 100 of each."""
    store = task.store
    confidences: dict[str, list[float]] = {one.name: [] for one in task.maps if one.kind == "classes"}
    worker = task.validation.worker(task.segmenter)
    for clip in spread(task.validation.clips, MAX_CLIPS) if confidences else ():
        means = {name: MeanConfidence() for name in confidences}
        for _, predictions in task.validation.predict(worker, clip):
            for name, mean in means.items():
                confidence = predictions[name].confidence
                assert confidence is not None
                mean.add(predictions[name].masks, quantise(confidence, 256))
        for name, mean in means.items():
            confidences[name].append(mean.value)
    return Reference(
        height=store.height,
        width=store.width,
        aspect=store.meta.get("source_aspect", [store.width / store.height] * 2),
        colours=mean_std_by_key(
            colour_features(store.frames(clip)) for clip in spread(task.windows.clips, MAX_CLIPS)
        ),
        confidence={name: mean_std(values) for name, values in confidences.items()},
    )
