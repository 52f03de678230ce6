"""Makes this folder anew with the code of commit 46791c4.

In a checkout of that commit, with its requirements installed:

    OMP_NUM_THREADS=1 PYTHONPATH=src:. python make.py OUT
"""

import hashlib
import json
import lzma
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tests.conftest import SMALL_DETECTOR, write_detection_set, write_store

from maskcast.data.clip_store.reader import ClipStore, sha256_of
from maskcast.data.detection.dataset import DetectionSet
from maskcast.digest import digest_tree
from maskcast.models.detectors import detect_images, load_detector
from maskcast.models.forecasters import load_forecaster
from maskcast.models.masker_base import predict_masks
from maskcast.models.maskers import load_masker
from maskcast.registry.runtime import EncoderModel, load_bundle
from maskcast.registry.store import Registry

COMMIT = "46791c4cd43091b00b7594384695c262990366c3"
SEEN = HORIZON = 11
ALIVE = {"encoder": 6, "head": 16}  # channels of the detector that learn; the others stay 0, which compresses
UNITS = 1024  # of the detector's head
LARGE = 200_000  # bytes from which on a file is kept compressed

ADAM = {"epochs": 2, "steps_per_epoch": 10, "batch_size": 4, "learning_rate": 0.005, "precision": "fp32"}
MASKS = {"hidden": 2, "motion": "none"}
PARAMS: dict[str, dict[str, Any]] = {
    "pretrain_encoder": {
        "model": {"arch": "unet", "width": 2},
        "method": {"name": "densecl", "queue": 16, "hidden": 8, "dim": 4},
        "views": {"size": [16, 16]},
        "training": ADAM | {"batch_size": 8, "learning_rate": 0.06},
    },
    "train_masker": {
        "model": {"arch": "unet", "width": 2},
        "loss": {"background_weight": 0.2},
        "training": ADAM | {"steps_per_epoch": 150, "learning_rate": 0.03, "checkpoint_every": 10},
    },
    "generate_masks": {"precision": "fp32", "consistent_frames": SEEN},
    "evaluate": {"pictures": 0},
    "predict": {"png": True, "submission": True},
    "register_models": {"gate": {"margin": 0.01}},
    "train_detector": {
        "model": SMALL_DETECTOR | {"width": 8},
        "ema": 0.9,
        "unlabeled": {"batch_size": 1, "burn_in_steps": 60, "threshold": 0.3},
        "training": {
            "phases": [{"learning_rate": 0.05, "epochs": 1}],
            "steps_per_epoch": 80,
            "batch_size": 4,
            "clip_grad_norm": 10,
            "precision": "fp32",
            "checkpoint_every": 2,
        },
    },
    "evaluate_detector": {"precision": "fp32", "batch_size": 1, "pictures": 0},
    "register_detector": {"gate": {"least": {"AP50": 0.0}}},
}
FORECASTERS: dict[str, dict[str, Any]] = {
    "objects": {"arch": "objects", "hidden": 8},
    "convlstm": {"arch": "convlstm", "stride": 4, **MASKS},
    "convgru": {"arch": "convgru", "stride": 1, "embedding": "onehot", **MASKS},
    "frames": {"arch": "convlstm", "input": "frames", "stride": 4, **MASKS},
}


def main(out: Path) -> None:
    """Makes all in a scratch folder and copies it to ``out``."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        os.environ["MASKCAST_GIT_SHA"] = COMMIT
        make()
        for name in ("params", "clips", "masks", "dataset", "encoder", "masker", "forecaster", "detector"):
            shutil.copytree(name, out / name)
        for name in ("checkpoint", "registered", "answers"):
            shutil.copytree(name, out / name)
    for file in out.rglob("*"):
        if file.is_file() and file.stat().st_size > LARGE and file.suffix in (".pt", ".safetensors"):
            file.with_name(file.name + ".xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))
            file.unlink()


def make() -> None:
    """Writes everything into the working directory."""
    write_store(Path("clips"), height=24, width=32, train=2, val=2, unlabeled=1, hidden=1)
    write_detection_set(Path("dataset"), unlabeled=1, train=4, val=2)
    for name, values in PARAMS.items():
        write_params(name, name, values)
    for name, model in FORECASTERS.items():
        own = {"epochs": 1, "steps_per_epoch": 80, "checkpoint_every": 10}
        training = ADAM | (own if name == "objects" else {"learning_rate": 0.03})
        values = {"model": model, "training": training}
        write_params(f"pretrain_forecaster-{name}", "pretrain_forecaster", values)
    write_params("finetune_forecaster", "finetune_forecaster", {"training": ADAM})

    run("pretrain_encoder", unlabeled="clips", encoder="encoder")
    run_killed("train_masker", 270, clips="clips", encoder="encoder", masker="masker")
    masked = {"clips": "clips", "masks": "masks", "masker": "masker"}
    run("generate_masks", **masked)
    for name in FORECASTERS:
        values = {"params": f"pretrain_forecaster-{name}", **masked, "pretrained": f"forecaster/{name}"}
        if name == "objects":
            run_killed("pretrain_forecaster", 60, **values)
        else:
            run("pretrain_forecaster", **values)
    finetuned = {**masked, "forecaster": "forecaster/finetuned"}
    run("finetune_forecaster", pretrained="forecaster/objects", **finetuned)
    run("evaluate", **finetuned, report="report")
    run("predict", **finetuned, predictions="predictions/finetuned")
    run("predict", **masked, forecaster="forecaster/frames", predictions="predictions/frames")
    finetuned = {"clips": "clips", "encoder": "encoder", "masker": "masker", "forecaster": "forecaster/finetuned"}
    run("register_models", **finetuned, report="report", registration="registration.json")

    detector = {"dataset": "dataset", "detector": "detector"}
    kill("train_detector", 2, **detector)
    thin_out(Path("detector.resume/checkpoint.pt"))
    run_killed("train_detector", 70, **detector)
    run("evaluate_detector", **detector, report="detector-report")
    run("register_detector", **detector, report="detector-report", registration="detector.json")
    copy_registered()
    write_answers()


def write_params(file: str, stage: str, values: dict[str, Any]) -> None:
    """Writes a params file of one stage."""
    Path("params").mkdir(exist_ok=True)
    Path(f"params/{file}.yaml").write_text(yaml.safe_dump({stage: values}, sort_keys=False))


def command(stage: str, params: str | None = None, **ports: str) -> list[str]:
    """Returns the command of a stage."""
    words = ["python", "-m", "maskcast", stage, "--params", f"params/{params or stage}.yaml"]
    if stage != "predict" and not stage.startswith("register"):
        ports = ports | {"metrics": f"{stage}.json"}
    return words + [word for port, path in ports.items() for word in (f"--{port}", path)]


def run(stage: str, params: str | None = None, **ports: str) -> None:
    """Runs a stage."""
    subprocess.run(command(stage, params, **ports), check=True)


def kill(stage: str, at: int, params: str | None = None, **ports: str) -> tuple[Path, int]:
    """Starts a stage and kills it once it has left a checkpoint of step ``at`` or later."""
    folder = Path(f"{list(ports.values())[-1]}.resume")
    process = subprocess.Popen(command(stage, params, **ports))
    while not (folder / "checkpoint.pt").exists() or step_of(folder) < at:
        assert process.poll() is None, "it ended before it was killed; try again"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (folder / "checkpoint.pt.partial").unlink(missing_ok=True)
    return folder, step_of(folder)


def run_killed(stage: str, at: int, params: str | None = None, **ports: str) -> None:
    """Runs a stage that is killed on its way, and keeps what it left behind and how it ended."""
    folder, step = kill(stage, at, params, **ports)
    output = list(ports.values())[-1]
    kept = Path("checkpoint", stage)
    shutil.copytree(folder, kept / "left", ignore=shutil.ignore_patterns("mlflow_run_id"))
    run(stage, params, **ports)
    about = {
        "command": shlex.join(command(stage, params, **ports)),
        "params": f"params/{params or stage}.yaml",
        "inputs": {port: path for port, path in ports.items() if path != output},
        "output": list(ports)[-1],
        "result": output,
        "step": step,
        "steps": steps_of(Path(command(stage, params)[5]), stage),
        "weights_sha256": sha256_of(Path(output, "model.safetensors")),
        "metrics": json.loads(Path(f"{stage}.json").read_text()),
    }
    write_json(kept / "run.json", about)
    assert about["metrics"]["best_epoch"] == about["metrics"]["epochs"], "what it left is what it ended with"


def step_of(folder: Path) -> int:
    """Returns the step of a checkpoint."""
    step: int = torch.load(folder / "checkpoint.pt", weights_only=True)["progress"]["step"]
    return step


def steps_of(params: Path, stage: str) -> int:
    """Returns the steps of a whole training."""
    training = yaml.safe_load(params.read_text())[stage]["training"]
    epochs = training.get("epochs") or sum(phase["epochs"] for phase in training["phases"])
    return int(epochs * training["steps_per_epoch"])


def thin_out(path: Path) -> None:
    """Sets most channels of a detector's checkpoint to 0: ReLUs keep them there, and the file compresses.

    What is left of the heads is scaled up, so that scores do not all start alike.
    """
    state = torch.load(path, weights_only=True)
    for weights in (state["model"], state["progress"]["best_weights"]):
        for name, tensor in weights.items():
            if tensor.ndim == 0:
                continue
            alive = ALIVE["encoder" if ".encoder." in name else "head"]
            hidden = ".fc6." in name or ".fc7." in name
            if ".encoder." in name or hidden:
                tensor[alive:] = float(name.endswith("running_var"))
            if tensor.ndim > 1 and (".fc7." in name or ".box_predictor." in name):
                tensor[:, alive:] = 0
                tensor *= (UNITS / alive) ** 0.5
            elif tensor.ndim > 1 and ".encoder." in name and "conv1.0." not in name:
                tensor[:, alive:] = 0
    for each in state["optimizer"]["state"].values():
        each["momentum_buffer"].zero_()
    torch.save(state, path)


def copy_registered() -> None:
    """Copies what the registry holds: artifacts, tags and evaluations."""
    known: dict[str, Any] = {}
    names = {"pipeline": "maskcast"} | {
        kind: f"maskcast-{kind}" for kind in ("masker", "forecaster", "encoder", "detector")
    }
    for kind, name in names.items():
        registry = Registry(name)
        version = registry.find("1")
        folder = registry.client.download_artifacts(version.run_id, kind, tempfile.mkdtemp(dir="."))
        shutil.copytree(folder, Path("registered", kind))
        known[kind] = {"name": name, "digest": version.digest, "aliases": version.aliases, "tags": version.tags}
        if kind in ("pipeline", "detector"):
            folder = registry.client.download_artifacts(version.run_id, "evaluation", tempfile.mkdtemp(dir="."))
            shutil.copytree(folder, Path("registered", f"{kind}-evaluation"))
    write_json(Path("registered/registry.json"), known)


@torch.inference_mode()
def write_answers() -> None:
    """Asks everything."""
    answers = Path("answers")
    answers.mkdir()
    store, masks = ClipStore(Path("clips")), ClipStore(Path("masks"))
    frames = store.frames(store.get("val_0"))
    masker = load_masker(Path("masker"))[0]
    logits = masker(torch.tensor(frames[:2])).numpy()
    np.savez_compressed(answers / "masker.npz", masks=predict_masks(masker, frames, "fp32")[0], logits=logits)
    for name in (*FORECASTERS, "finetuned"):
        model = load_forecaster(Path("forecaster", name))[0]
        layer = getattr(store, model.input)
        context = torch.from_numpy(np.stack([layer(clip)[:SEEN] for clip in store.select("val")]))
        found = {"forecast": model.forecast(context, HORIZON).numpy()}
        if model.input == "masks":
            found["confidence"] = model.forecast_with_confidence(context, HORIZON)[1].numpy()
        np.savez_compressed(answers / f"forecaster-{name}.npz", **found)
    features = EncoderModel(Path("encoder")).predict(frames[:4])
    np.savez_compressed(answers / "encoder.npz", features=features)
    split = DetectionSet(Path("dataset")).split("val")
    network = load_detector(Path("detector"))[0]
    found = [detect_images(network, [split.image(n)], "fp32")[0] for n in range(len(split))]
    boxes = {f"{name}_{n}": array for n, one in enumerate(found) for name, array in zip(BOXES, one, strict=True)}
    np.savez_compressed(answers / "detector.npz", **boxes)
    for kind, known in json.loads(Path("registered/registry.json").read_text()).items():
        folder = Path("registered", kind)
        example = np.array(json.loads((folder / "input_example.json").read_text()), np.uint8)
        found = load_bundle(folder / "data", known["digest"]).predict(example)
        np.savez_compressed(answers / f"registered-{kind}.npz", prediction=found)
    write_json(
        answers / "answers.json",
        {
            "machine": machine(),
            "arrays": {"clips": arrays(store), "masks": arrays(masks)},
            "digests": {
                path: digest_tree(Path(path))
                for path in ("clips", "dataset", "encoder", "masker", "masks", "detector")
            }
            | {f"forecaster/{name}": digest_tree(Path("forecaster", name)) for name in (*FORECASTERS, "finetuned")}
            | {f"predictions/{name}": digest_tree(Path("predictions", name)) for name in ("finetuned", "frames")},
            "predictions": {
                name: arrays(ClipStore(Path("predictions", name))) for name in ("finetuned", "frames")
            },
            "metrics": {
                file.stem: {key: value for key, value in json.loads(file.read_text()).items() if lasting(key)}
                for file in sorted(Path().glob("*.json"))
                if file.stem in PARAMS or file.stem == "finetune_forecaster"
            },
        },
    )
    for name in ("finetuned", "frames"):
        store = ClipStore(Path("predictions", name))
        found = {clip.id: store.masks(clip) for clip in store.clips}
        np.savez_compressed(answers / f"predict-{name}.npz", **found)


BOXES = ("boxes", "scores", "labels")


def lasting(metric: str) -> bool:
    """Whether a metric is no measure of time or memory."""
    return "second" not in metric and "memory" not in metric


def arrays(store: ClipStore) -> dict[str, dict[str, str]]:
    """Returns the sha256 of every array of a clip store."""
    layers = ("frames", "masks", "confidence")
    return {
        clip.id: {
            layer: hashlib.sha256(np.ascontiguousarray(getattr(store, layer)(clip)).data).hexdigest()
            for layer in layers
            if getattr(clip, f"has_{layer}")
        }
        for clip in store.clips
    }


def machine() -> str:
    """Returns a digest of what the last bits of a sum depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    first = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = ("model name", "cpu family", "model", "stepping", "cache size")
    known = {
        "machine": platform.machine(),
        "processor": ", ".join(first.get(name, "") for name in names),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: Path, content: Any) -> None:
    """Writes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
