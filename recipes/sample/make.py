"""Makes what comes with maskcast in src/maskcast/samples: a small pipeline, and a clip that it has never seen.

After `make repro`, in the root of the project:

    python recipes/sample/make.py candidate

The clip is the beginning of a simulated video, up to the last frame that is seen. What follows is known, so the
forecast is scored; sample.json holds the scores, and a test makes them again.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import av
import numpy as np

from maskcast.data.images import resize_frames
from maskcast.data.video_files.frames import read_video
from maskcast.errors import one_line_errors
from maskcast.evaluation.horizons import HorizonCounts
from maskcast.registry.loading import LoadedPipeline, download, load_address, pipeline_of
from maskcast.registry.store import Registry, Version
from maskcast.simulator.scenes import simulate_clip
from maskcast.writing import write_json

SAMPLES = Path(__file__).resolve().parents[2] / "src/maskcast/samples"
SEED = 9035  # chosen among 60: five whole objects are seen, of which four collide afterwards
HEIGHT, WIDTH, FPS = 320, 480, 25


def main() -> None:
    """Writes pipeline, clip and scores."""
    parser = argparse.ArgumentParser(description="the pipeline and the clip that come with maskcast")
    parser.add_argument("version", help="number or alias")
    parser.add_argument("--name", default="maskcast", help="the registered model (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=SAMPLES, help="default: src/maskcast/samples")
    args = parser.parse_args()
    registry = Registry(args.name)
    version = registry.find(args.version)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output) as scratch:
        made = Path(scratch, "made")  # the old sample stays until this one is whole
        scores = make(registry, version, Path(scratch), made)
        shutil.rmtree(args.output / "pipeline", ignore_errors=True)
        for part in made.iterdir():
            part.replace(args.output / part.name)
    print(f"{args.output}: {json.dumps(scores)}")


def make(registry: Registry, version: Version, scratch: Path, output: Path) -> dict[str, float]:
    """Writes pipeline, clip and scores into a new folder; returns the scores."""
    pipeline, clip = output / "pipeline", output / "sample.mp4"
    shutil.copytree(download(registry, version, scratch), pipeline)
    loaded = pipeline_of(load_address(str(pipeline)))
    stride, seen = loaded.about.frame_stride or 1, loaded.about.context_frames
    frames = (seen - 1) * stride + 1
    video, _ = simulate_clip(SEED, frames=span(loaded), stride=1, height=HEIGHT, width=WIDTH, keep=frames)
    assert video is not None
    write_video(clip, video)
    scores: dict[str, float] = {"seed": SEED, "frames": frames, **sample_scores(loaded, clip, SEED)}
    write_json(output / "sample.json", scores)
    return scores


def write_video(path: Path, frames_THWC: np.ndarray) -> None:
    """Writes frames as H.264, nearly without loss."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "16", "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame_HWC in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))


def span(loaded: LoadedPipeline) -> int:
    """Returns the number of video frames from the first context frame to the last forecast frame."""
    about = loaded.about
    return (about.context_frames + about.horizon - 1) * (about.frame_stride or 1) + 1


def sample_scores(loaded: LoadedPipeline, clip: Path, seed: int) -> dict[str, float]:
    """Returns the macro Jaccard, without absent classes, of the forecast after the clip.

    Args:
        loaded: the pipeline.
        clip: video of the context frames.
        seed: seed of the simulated video that the clip is the beginning of.
    """
    about = loaded.about
    stride, size = about.frame_stride or 1, (about.height, about.width)
    seen_THWC = read_video(clip, range(0, (about.context_frames - 1) * stride + 1, stride))
    _, future_hHW = loaded.model.predict_masks(resize_frames(seen_THWC, *size))
    _, truth_THW = simulate_clip(seed, frames=span(loaded), stride=1, height=size[0], width=size[1], render=False)
    counts = HorizonCounts(len(about.classes), about.horizon)
    counts.count(truth_THW[::stride][about.context_frames :], future_hHW)
    per_step = counts.per_horizon()
    return {"jaccard_last": round(per_step[-1], 4), "jaccard_mean": round(float(np.mean(per_step)), 4)}


if __name__ == "__main__":
    with one_line_errors():
        main()
