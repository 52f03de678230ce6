"""Sessions of the server: each client has its own, so many at once, and none outlives its client."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import ROOT, moving_squares
from tests.registered import CLASSES, write_registered
from tests.unit.test_serving_load import served
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from maskcast.__main__ import main
from maskcast.inference.segment import segment_whole
from maskcast.inference.session import Session
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.segmentation.configs import RecurrentConfig, UNetConfig
from maskcast.models.segmentation.table import load_masker, save_masker
from maskcast.registry.loading import load_servable
from maskcast.serving import application
from maskcast.serving.application import make_app, served_model
from maskcast.serving.sessions import MAX_FRAME, Sessions

MAPS = (LabelMap("squares", CLASSES), LabelMap("matte", ("background", "foreground"), "alpha"))
MOST, IDLE_S = 2, 300.0  # on a slow machine, too, no frame of an honest client is late
WAIT_S = 120


@pytest.fixture(scope="module")
def masker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that remembers, of random weights."""
    torch.manual_seed(0)
    config = RecurrentConfig(base=UNetConfig(width=4))
    network, folder = config.build(MAPS), tmp_path_factory.mktemp("models") / "masker"
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_masker(folder, network, config, {})
    return folder


@contextmanager
def server(address: Path) -> Iterator[str]:
    """Serves a model, and gives the address of its sessions."""
    model = served_model(load_servable(str(address)))
    with served(make_app(model, MOST, IDLE_S)) as (_, port):
        yield f"ws://127.0.0.1:{port}/v2/models/{model.name}/session"


@pytest.fixture(scope="module")
def address(masker: Path) -> Iterator[str]:
    with server(masker) as found:
        yield found


def test_a_server_tells_the_size_that_its_masker_was_trained_on(masker: Path, tmp_path: Path) -> None:
    assert "height" not in served_model(load_servable(str(masker))).facts  # this one does not know it
    network, _ = load_masker(masker)
    save_masker(
        tmp_path / "sized", network, RecurrentConfig(base=UNetConfig(width=4)), {"height": 24, "width": 40}
    )
    facts = served_model(load_servable(str(tmp_path / "sized"))).facts
    assert (facts["height"], facts["width"]) == (24, 40)


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sessions]]:
    """Fills with what keeps the sessions, once the server has been asked; after the test none is open any more."""
    found: list[Sessions] = []
    call = Sessions.__call__

    async def known(self: Sessions, given: Any) -> None:
        found.append(self)
        await call(self, given)

    monkeypatch.setattr(Sessions, "__call__", known)
    yield found
    wait_until(lambda: not any(each.open for each in found))


def message(frame: np.ndarray, **more: Any) -> bytes:
    height, width = frame.shape[:2]
    return json.dumps({"height": height, "width": width} | more).encode() + b"\n" + frame.tobytes()


def ask(client: ClientConnection, frame: np.ndarray, **more: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Sends a frame; returns the line of the answer, and the maps (M, H, W)."""
    client.send(message(frame, **more))
    answer = client.recv(timeout=WAIT_S)
    assert isinstance(answer, bytes), answer
    head, _, pixels = answer.partition(b"\n")
    return json.loads(head), np.frombuffer(pixels, np.uint8).reshape(-1, *frame.shape[:2])


def wanted(masker: Path, frames: np.ndarray) -> np.ndarray:
    """The maps (T, M, H, W) of a clip, by the code that masks clips."""
    found = segment_whole(Worker(load_masker(masker)[0], "fp32"), frames, batch_size=1)
    return np.stack([found[one.name].masks for one in MAPS], 1)


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def test_each_client_has_the_masks_of_its_own_video(address: str, masker: Path) -> None:
    clips = [moving_squares(seed, 6, 32, 48)[0] for seed in (0, 1)]
    with connect(address, open_timeout=WAIT_S) as first, connect(address, open_timeout=WAIT_S) as second:
        for client in (first, second):
            greeting = json.loads(client.recv())
            assert [one["name"] for one in greeting["maps"]] == ["squares", "matte"]
            assert (greeting["model_name"], greeting["idle_s"]) == ("masker", IDLE_S)
        both = [(ask(first, a), ask(second, b)) for a, b in zip(*clips, strict=True)]
        for answers, clip in zip(zip(*both, strict=True), clips, strict=True):
            np.testing.assert_array_equal([maps for _, maps in answers], wanted(masker, clip))
            assert [head["frame"] for head, _ in answers] == list(range(6))
        head, maps = ask(first, clips[0][0], reset=True)
        np.testing.assert_array_equal(maps, wanted(masker, clips[0][:1])[0])
        assert (head["frame"], head["reset"]) == (6, "")
        head, maps = ask(first, clips[0][1, :20])
        np.testing.assert_array_equal(maps, wanted(masker, clips[0][1:2, :20])[0])
        assert head["reset"] == "size"
        assert ask(first, 255 - clips[0][1, :20])[0]["reset"] == "cut"


def test_sessions_are_bounded_and_who_leaves_or_vanishes_frees_one(address: str, opened: list[Sessions]) -> None:
    frames, _ = moving_squares(0, 3, 32, 48)
    with connect(address, open_timeout=WAIT_S) as first, connect(address, open_timeout=WAIT_S) as second:
        for client in (first, second):
            client.recv()
        assert refused(address) == (1013, "session: the limit of 2 open sessions is reached; retry later")
        ask(first, frames[0])
        second.send(message(frames[0]))
        second.socket.shutdown(socket.SHUT_RDWR)  # vanishes with its answer on the way
        wait_until(lambda: opened[0].open == 1)
        with connect(address, open_timeout=WAIT_S) as third:
            third.recv()
            ask(third, frames[1])
    wait_until(lambda: opened[0].open == 0)


def refused(address: str, *sent: bytes | str) -> tuple[int, str]:
    """Sends messages; returns the code that the connection is closed with, and what is said before."""
    said = ""
    with connect(address, open_timeout=WAIT_S) as client:
        with pytest.raises(ConnectionClosed) as closed:
            for one in sent:
                client.send(one)
            while True:
                told = client.recv(timeout=WAIT_S)
                if isinstance(told, str) and "error" in json.loads(told):
                    said = json.loads(told)["error"]
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, said


def test_a_frame_that_takes_too_long_ends_its_session_with_a_line(
    masker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "ANSWER_S", -1.0)
    with server(masker) as address:
        code, said = refused(address, message(moving_squares(0, 1, 32, 48)[0][0]))
    assert code == 1008 and said.startswith("frames: the call exceeded its time limit of -1 s; use ")


def test_garbage_and_silence_are_said_in_a_line_and_nothing_is_left(
    address: str, opened: list[Sessions], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = moving_squares(0, 1, 32, 48)[0][0]
    good, line = message(frame), b'{"height": 32, "width": 48}\n'
    for sent, told in (
        ("hello", "message: not a frame; send a binary message of {"),
        (b"\x00" * 5000, "message: not a frame; send a binary message of {"),
        (b"{not json}\n" + frame.tobytes(), "message: the first line is not JSON with height and width; send"),
        (b"[1, 2]\n" + frame.tobytes(), "message: the first line is not JSON with height and width; send"),
        (b'{"height": 32}\n' + frame.tobytes(), "message: the first line is not JSON with height and width"),
        (message(frame, height=-32), "message: height and width must be positive integers"),
        (message(frame, height=True), "message: height and width must be positive integers"),
        (message(frame, reset=1), "message: height and width must be positive integers, and reset true or false"),
        (good[:-1], "message: 32x48 pixels have 4608 bytes, got 4607; send"),
        (line, "message: 32x48 pixels have 4608 bytes, got 0; send"),
        (bytes(MAX_FRAME + 1), "message: larger than 32 MiB; send smaller frames"),
    ):
        found, said = refused(address, good, sent)
        assert (found, told in said, "\n" in said) == (1008, True, False), (sent[:40], said)
        wait_until(lambda: opened[0].open == 0)
    with monkeypatch.context() as patch:
        patch.setattr(opened[0], "idle_s", 0.2)
        assert refused(address) == (1001, "session: timed out, no frame for 0.2 s; reconnect")
    said = refused(address.replace("masker", "other"))
    assert said == (1008, "model not found; this server serves 'masker', version '0'")


def test_a_session_that_fails_frees_its_place(
    address: str, opened: list[Sessions], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    frame = moving_squares(0, 1, 32, 48)[0][0]
    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", broken)
        assert refused(address, message(frame)) == (1011, "session: the model failed; see the server's log")
    wait_until(lambda: opened[0].open == 0)
    with connect(address, open_timeout=WAIT_S) as client:
        client.recv()
        ask(client, frame)


def test_a_pipeline_has_sessions_of_its_masker(tmp_path: Path) -> None:
    artifact = write_registered(tmp_path)
    frames, _ = moving_squares(0, 3, 32, 48)
    with server(artifact) as address, connect(address, open_timeout=WAIT_S) as client:
        client.recv()
        found = [ask(client, frame)[1][0] for frame in frames]
    masker = load_masker(tmp_path / "parts/masker")[0]
    np.testing.assert_array_equal(found, segment_whole(Worker(masker, "fp32"), frames, batch_size=1)["mask"].masks)


def test_the_command_says_what_is_wrong(masker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--model", str(tmp_path)], "no registered model found; give models:/"),
        (
            ["--model", str(masker), "--allow-origin", "https://app.example.org/"],
            "--allow-origin https://app.example.org/: not an origin; give SCHEME://HOST[:PORT]",
        ),
        (["--model", str(masker), "--idle", "0"], "--sessions, --idle: give 0 or more sessions, and more than 0"),
        (["--model", str(masker), "--sessions", "-1"], "--sessions, --idle: give 0 or more sessions"),
    ):
        assert main(["serve", *words]) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1


def test_the_documented_client_runs(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/streaming.md").read_text()
    programs = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    program = next(each for each in programs if "websockets" in each)
    documented = "ws://localhost:8080/v2/models/masker/session"
    assert documented in program
    values: dict[str, Any] = {"frames": moving_squares(0, 4, 32, 48)[0]}
    exec(program.replace(documented, address), values)
    assert values["masks"].shape == (32, 48)
