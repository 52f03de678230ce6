"""Sessions: frames one by one give the masks of the clip, and what is remembered is dropped when it must be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import ROOT, moving_squares
from tests.registered import CLASSES, clips_of_squares, write_registered
from tests.toy_segmenter import MemoryConfig

import maskcast
from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment_whole
from maskcast.inference.session import Session
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import Segmenter
from maskcast.registry.runtime import PyfuncModel, load_bundle

MAPS = (LabelMap("squares", CLASSES), LabelMap("matte", ("background", "foreground"), "alpha"))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return MemoryConfig().build(MAPS).eval()


def shown(session: Session, frames: np.ndarray) -> list[maskcast.Step]:
    return [session.step(frame) for frame in frames]


def assert_alike(steps: list[maskcast.Step], segmenter: Segmenter, frames: np.ndarray) -> None:
    whole = segment_whole(Worker(segmenter, "fp32"), frames, batch_size=1)
    for name in ("squares", "matte"):
        np.testing.assert_array_equal(np.stack([step.maps[name] for step in steps]), whole[name].masks)
    sure = np.stack([step.confidence["squares"] for step in steps])
    np.testing.assert_array_equal(sure, whole["squares"].confidence)
    assert all(step.confidence.keys() == {"squares"} for step in steps)


def test_a_frame_that_failed_ends_no_session(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = moving_squares(0, 6, 32, 48)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with Session(Worker(segmenter, "fp32")) as session:
        shown(session, frames[:2])
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(segmenter, "forward", stopped)
            session.step(frames[2])
        assert_alike(shown(session, frames[3:]), segmenter, frames[3:])


def test_frames_one_by_one_are_the_clip(segmenter: Segmenter) -> None:
    frames, _ = moving_squares(0, 12, 32, 48)
    with Session(Worker(segmenter, "fp32")) as session:
        steps = shown(session, frames)
        assert_alike(steps, segmenter, frames)
        assert {step.reset for step in steps} == {""}
        later = shown(session, frames[::-1])
        assert_alike([*steps, *later], segmenter, np.concatenate([frames, frames[::-1]]))
        session.reset()
        assert_alike(shown(session, frames), segmenter, frames)


def test_a_session_keeps_its_worker_when_it_is_reset(segmenter: Segmenter) -> None:
    worker = Worker(segmenter, "fp32")
    session = Session(worker)
    shown(session, moving_squares(0, 2, 32, 48)[0])
    assert worker.state
    session.reset()
    assert session._worker is worker and worker.state == ()


def test_sessions_of_one_segmenter_do_not_mix(segmenter: Segmenter) -> None:
    clips = [moving_squares(seed, 6, 32, 48)[0] for seed in (0, 1)]
    sessions = [Session(Worker(segmenter, "fp32")) for _ in clips]
    both = [[session.step(clip[t]) for session, clip in zip(sessions, clips, strict=True)] for t in range(6)]
    for steps, clip in zip(zip(*both, strict=True), clips, strict=True):
        assert_alike(list(steps), segmenter, clip)


def test_logits_are_those_of_the_classes_that_occur(segmenter: Segmenter) -> None:
    frames, _ = moving_squares(0, 3, 32, 48)
    with torch.inference_mode():
        (logits_BTKHW, _), _ = segmenter(torch.from_numpy(frames)[None], ())
    with Session(Worker(segmenter, "fp32", logits=True)) as session:
        for frame, logits_KHW in zip(frames, logits_BTKHW[0], strict=True):
            maps, _, _ = session.step(frame)  # three values, as without logits
            classes, logits_HWQ = session.logits["squares"]
            np.testing.assert_array_equal(classes, np.unique(maps["squares"]))
            np.testing.assert_array_equal(classes[logits_HWQ.argmax(-1)], maps["squares"])
            np.testing.assert_allclose(logits_HWQ, logits_KHW.numpy()[classes].transpose(1, 2, 0), atol=1e-5)
            assert session.logits.keys() == {"squares"}


def test_another_size_and_a_cut_begin_anew(segmenter: Segmenter) -> None:
    frames, _ = moving_squares(0, 6, 32, 48)
    session = Session(Worker(segmenter, "fp32"))
    for part, why in ((frames, ""), (frames[:, :20], "size"), (255 - frames[:, :20], "cut"), (frames, "size")):
        steps = shown(session, part)
        assert [step.reset for step in steps] == [why, *[""] * 5]
        assert_alike(steps, segmenter, part)
    blind = Session(Worker(segmenter, "fp32"), cuts=False)
    through = np.concatenate([frames, 255 - frames])
    assert_alike(shown(blind, through), segmenter, through)


def test_mistakes_are_one_line_and_do_no_harm(segmenter: Segmenter) -> None:
    frames, _ = moving_squares(0, 4, 32, 48)
    session = Session(Worker(segmenter, "fp32"))
    steps = [session.step(frames[0])]
    for wrong in (frames[0].astype(np.float32), frames[0, :, :, 0], frames[0, :0], frames, "frame", [[1], [2, 3]]):
        match = r"^frame: (got|a list cannot) .*; give uint8 of shape \(any, any, 3\)$"
        with pytest.raises(MaskcastError, match=match):
            session.step(wrong)  # type: ignore[arg-type]
    assert_alike([*steps, *shown(session, frames[1:])], segmenter, frames)
    session.close()
    session.close()
    with pytest.raises(MaskcastError, match="session: it has ended; open another one"):
        session.step(frames[0])


def test_the_documented_session_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_registered(tmp_path)
    (tmp_path / "models").symlink_to(tmp_path / "parts")
    text = (ROOT / "docs/streaming.md").read_text()
    program = text.split("## From Python")[1].split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    values = {"frames": clips_of_squares(1)[0]}
    exec(program, values)
    assert values["mask"].shape == values["sure"].shape


def test_registered_models_and_the_python_face_have_sessions(tmp_path: Path) -> None:
    artifact, clip = write_registered(tmp_path), clips_of_squares(1)[0]
    pyfunc = PyfuncModel(load_bundle(artifact / "data")).get_raw_model()
    wanted = maskcast.Segmenter(tmp_path / "parts/masker").segment(clip).masks
    for model in (pyfunc, maskcast.Segmenter(artifact), maskcast.Segmenter(tmp_path / "parts/masker")):
        with model.session() as session:  # type: ignore[union-attr]
            np.testing.assert_array_equal([session.step(frame).maps["mask"] for frame in clip], wanted)
