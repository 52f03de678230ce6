"""Models, losses and more of another package: a small one is installed beside maskcast, for one test."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import moving_squares, write_store
from tests.registered import FACTS, SEEN, write_parts
from tests.toy_segmenter import Memory, MemoryConfig

from maskcast import plugins
from maskcast.data.augment.frames import Augmentation
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.detection.sources.base import DetectionSource
from maskcast.data.listing_checks import check_meta, list_clips
from maskcast.data.sources.base import SourceConfig
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.inference.forecast import ForecastSetting, forecast_clips
from maskcast.labels import single_map
from maskcast.models.base import save_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.base import Forecaster
from maskcast.models.forecasting.table import build_forecaster, load_forecaster
from maskcast.models.rebuilding import differ
from maskcast.models.segmentation.config import LossConfig, MaskerModelConfig, SegmenterModelConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import load_masker
from maskcast.models.weights import build_within_limit
from maskcast.params import validate
from maskcast.registry.artifact import write_artifact
from maskcast.registry.bundle import write_bundle
from maskcast.registry.kinds import ForecastDescription
from maskcast.registry.loading import load_address
from maskcast.runner.code_digests import module_digests
from maskcast.runner.fingerprint import fingerprint
from maskcast.runner.provenance import PLUGINS, run_tags
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.loop import fit
from maskcast.training.tasks.forecasting import ForecastTask
from maskcast.training.tasks.segmentation import FrameTask, WindowTask
from maskcast.training.tasks.segmentation_params import WindowParams

SEGMENTERS = "maskcast.segmenters"
PAGE = (Path(__file__).parents[2] / "docs/add-a-model.md").read_text(encoding="utf-8")
MODULES = {
    **{name: source for source, name in re.findall(r"```python\n(# mynets/(\w+)\.py\n.*?)```", PAGE, re.DOTALL)},
    "nameless": """
from maskcast.models.segmentation.config import SegmenterModelConfig

class Nameless(SegmenterModelConfig):
    width: int = 1
""",
    "broken": "import no_such_module_anywhere",
    "ending": "import sys; sys.exit(3)",
    "taken": """
from typing import Literal

from maskcast.models.segmentation.config import SegmenterModelConfig

class Taken(SegmenterModelConfig):
    arch: Literal["unet"] = "unet"
""",
}
ALL = {SEGMENTERS: "mynets.fcn:FcnConfig", "maskcast.forecasters": "mynets.step:StepConfig"}
ALL |= {"maskcast.layouts": "mynets.numpy_clips:NumpyClipsConfig"}
ALL |= {"maskcast.losses": "mynets.lovasz:LovaszConfig", "maskcast.augmentations": "mynets.erasing:ErasingConfig"}
GRU = {SEGMENTERS: "mynets.gru:GruConfig"}
CALM = {"maskcast.forecasters": "mynets.calm:CalmConfig"}
TRAINING = {"training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "learning_rate": 0.01}}
SIZES = {"height": None, "width": None, "seed": 0}
Install = Callable[[dict[str, str]], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs the package with some entry points, as pip would: modules, and metadata beside them."""

    def installed(points: dict[str, str]) -> Path:
        site = tmp_path / "site"
        (site / "mynets").mkdir(parents=True)
        (site / "mynets" / "__init__.py").touch()
        for name, source in MODULES.items():
            (site / "mynets" / f"{name}.py").write_text(source, encoding="utf-8")
        about = site / "mynets-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mynets\nVersion: 1.2\n", encoding="utf-8")
        groups = [f"[{group}]\n{value.partition(':')[2].lower()} = {value}\n" for group, value in points.items()]
        (about / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        plugins._all_entry_points.cache_clear()
        return site

    yield installed
    plugins._all_entry_points.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "mynets"]:
        del sys.modules[name]


TRAIN = """
import json
import sys
from pathlib import Path

from maskcast.commands.help import describe_params
from maskcast.stages.generate_masks import GenerateMasks, generate_masks
from maskcast.stages.pretrain_forecaster import PretrainForecaster, pretrain_forecaster
from maskcast.stages.train_masker import TrainMasker, train_masker

clips, masker, masks, forecaster, metrics = map(Path, ("clips", "masker", "masks", "forecaster", "metrics.json"))
training = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "learning_rate": 0.01}
own = {"training": training}
own["model"], own["window"] = json.loads(sys.argv[2])
own |= {"loss": {"name": "lovasz"}, "augment": {"name": "erasing", "crop": [16, 16]}}
train_masker(clips=clips, masker=masker, metrics=metrics, params=TrainMasker.model_validate(own))
generate_masks(clips=clips, masker=masker, masks=masks, metrics=metrics, params=GenerateMasks())
own = PretrainForecaster.model_validate({"model": {"arch": sys.argv[1]}, "training": training})
pretrain_forecaster(clips=clips, masks=masks, masker=masker, pretrained=forecaster, metrics=metrics, params=own)
print(describe_params(TrainMasker))
"""


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own, which finds the package that is installed."""
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=800, check=False)


@pytest.mark.parametrize(
    ("own", "masker", "window", "forecaster"),
    [
        (ALL, {"arch": "fcn", "width": 4}, None, "step"),
        (ALL | GRU | CALM, {"arch": "conv_gru", "width": 4}, {"frames": 4, "chunk": 2}, "calm"),
    ],
)
def test_what_another_package_brings_trains_and_loads(
    install: Install, own: dict[str, str], masker: Any, window: Any, forecaster: str, tmp_path: Path
) -> None:
    install(own)
    write_store(tmp_path / "clips")
    done = run("-c", TRAIN, forecaster, json.dumps([masker, window]), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "masker/config.json").read_text())["model"] == masker
    assert json.loads((tmp_path / "forecaster/config.json").read_text())["model"]["arch"] == forecaster
    for said in (
        f"arch: {masker['arch']}",
        "width: Channels of the ",
        "name: lovasz",
        "name: erasing",
        "per_image: Mean",
    ):
        assert said in done.stdout


def test_the_page_declares_what_it_shows() -> None:
    assert set(ALL) == set(plugins.UNION_MODULES)
    for group, value in ALL.items():
        assert re.search(rf'^\[project\.entry-points\."{group}"\]\n\w+ = "{value}"$', PAGE, re.MULTILINE)
        assert f"`{group}`" in PAGE


def test_a_model_whose_package_is_gone_says_so(tmp_path: Path) -> None:
    about = {"format": "maskcast-model/1", "model": {"arch": "fcn"}, "num_classes": 2, "meta": {}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    for load in (load_masker, load_forecaster):
        with pytest.raises(
            MaskcastError, match=r"model: 'fcn' is no installed .* install the package that has it$"
        ):
            load(tmp_path)


def test_a_key_that_a_model_lacks_is_named(tmp_path: Path) -> None:
    about = {"format": "maskcast-model/1", "model": {"arch": "unet", "depth": 3}, "num_classes": 2, "meta": {}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(MaskcastError, match=r"config\.json: model: unet\.depth: .* not permitted; give a model"):
        load_masker(tmp_path)


def test_a_layout_of_another_package_is_read(install: Install, tmp_path: Path) -> None:
    install(ALL)
    (tmp_path / "raw").mkdir()
    for name in ("train_0", "val_0"):
        frames, masks = moving_squares(1, 22, 32, 48)
        np.savez(tmp_path / "raw" / f"{name}.npz", frames=frames, masks=masks.clip(0, 1))
    (tmp_path / "params.yaml").write_text("prepare_clips: {source: {layout: numpy_clips}}\n")
    words = ["prepare_clips", "--params", "params.yaml", "--raw", "raw", "--clips", "clips"]
    done = run("-m", "maskcast", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    store = ClipStore(tmp_path / "clips")
    assert [(clip.id, clip.split) for clip in store.clips] == [("train_0", "train"), ("val_0", "val")]


def test_a_meta_that_is_not_json_is_named() -> None:
    class Layout(SourceConfig):
        layout: str = "own"

    with pytest.raises(MaskcastError, match=r"Layout: the meta of clip 'a' has 'file', which is not JSON \(Obj"):
        check_meta(Layout(), {"number": 1, "file": Path("x")}, "clip 'a'")


@pytest.mark.parametrize("base", [SourceConfig, DetectionSource])
def test_a_layout_that_lists_nothing_is_told_what_it_lacks(base: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=rf"^{base.__name__} does not implement listing\(\)$"):
        base.listing(base.model_construct(), tmp_path, **({} if base is DetectionSource else SIZES))


def test_a_stage_that_may_use_a_package_names_its_modules(install: Install) -> None:
    bare = module_digests("maskcast.stages.train_masker")
    site = install({SEGMENTERS: ALL[SEGMENTERS]})
    named = module_digests("maskcast.stages.train_masker")
    assert set(named) - set(bare) == {f"mynets/{file.name}" for file in (site / "mynets").iterdir()}
    assert named["mynets/fcn.py"] == sha256_of(site / "mynets" / "fcn.py")
    assert not any(place.startswith("mynets") for place in module_digests("maskcast.stages.fetch_dataset"))
    assert "mynets" not in sys.modules  # it was read, not run


def test_a_run_of_changed_plugins_is_another_one(install: Install, tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("clips")
    params = TrainMasker.model_validate(TRAINING)
    stage = "maskcast.stages.train_masker"
    bare = fingerprint(stage, params, clips=tmp_path / "clips")
    site = install({"maskcast.losses": ALL["maskcast.losses"]})
    own = fingerprint(stage, params, clips=tmp_path / "clips")
    tag = run_tags("train_masker", params, {})[PLUGINS]
    assert re.fullmatch(r"mynets 1\.2; files [0-9a-f]{16}", tag)
    (site / "mynets/lovasz.py").write_text("# changed")
    assert len({bare, own, fingerprint(stage, params, clips=tmp_path / "clips")}) == 3


@pytest.mark.parametrize("group", ["maskcast.losses", "maskcast.augmentations"])
def test_what_trains_alone_reruns_no_other_stage(install: Install, tmp_path: Path, group: str) -> None:
    install({group: ALL[group]})
    stages = (
        "train_masker",
        "find_learning_rate",
        "generate_masks",
        "pretrain_forecaster",
        "evaluate",
        "prepare_clips",
    )
    using = [name for name in stages if "mynets/erasing.py" in module_digests(f"maskcast.stages.{name}")]
    assert using == ["train_masker", "find_learning_rate"]
    write_artifact(tmp_path, "a card", np.zeros((1, 2, 2, 3), np.uint8), ((-1, 2, 2, 3), (-1, 2, 2)))
    assert "mynets" not in (tmp_path / "requirements.txt").read_text()


@pytest.mark.parametrize("key", ["loss", "augment"])
def test_a_loss_whose_package_is_gone_says_so(key: str) -> None:
    said = rf"^params\.yaml: {key}: unknown name 'mine'; allowed: standard \(or install its package\) \(and 1 "
    with pytest.raises(MaskcastError, match=said):
        validate(TrainMasker, {key: {"name": "mine", "x": 1}}, "params.yaml: ")


def test_the_names_of_its_own_change_no_fingerprint() -> None:
    plain = TrainMasker.model_validate(TRAINING)
    named = {"loss": {"name": "standard"}, "augment": {"name": "standard"}} | TRAINING
    assert TrainMasker.model_validate(named).model_dump() == plain.model_dump()


def test_a_registered_model_names_the_package(install: Install, tmp_path: Path) -> None:
    install(ALL)
    write_artifact(tmp_path, "a card", np.zeros((1, 2, 2, 3), np.uint8), ((-1, 2, 2, 3), (-1, 2, 2)))
    assert (tmp_path / "requirements.txt").read_text().splitlines().count("mynets==1.2") == 1


def test_a_registered_model_whose_package_is_gone_names_it(install: Install, tmp_path: Path) -> None:
    parts, artifact = write_parts(tmp_path / "parts"), tmp_path / "artifact"
    config = parts["masker"] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model": {"arch": "fcn"}}))
    write_bundle(artifact / "data", ForecastDescription(kind="pipeline", **FACTS), parts)
    site = install(ALL)
    write_artifact(artifact, "a card", np.zeros((1, SEEN, 2, 2, 3), np.uint8), ((-1, 2, 2, 3), (-1, 2, 2)))
    shutil.rmtree(site)
    with pytest.raises(
        MaskcastError, match=r"'fcn'.*; its requirements include mynets==1\.2, which is not installed$"
    ):
        load_address(str(artifact))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("mynets.broken:Broken", r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_module_any"),
        ("mynets.ending:Ending", r"cannot be imported \(SystemExit: 3\); fix that package, or uninstall it"),
        ("mynets.fcn:Missing", r"cannot be imported \(AttributeError: .*; fix that package, or uninstall it"),
        ("mynets.step:StepConfig", r"must be a subclass of maskcast\.models\.segmentation\.config\.Segm"),
        ("mynets.taken:Taken", r"arch: 'unet'; set it to a Literal of unused names \(in use: memory, unet\)"),
        ("mynets.nameless:Nameless", r"arch: missing; set it to a Literal"),
    ],
)
def test_a_package_at_fault_is_named(install: Install, value: str, said: str) -> None:
    install({SEGMENTERS: value})
    with pytest.raises(MaskcastError, match=rf"^mynets: plugin '.*' of {SEGMENTERS} \({value}\): {said}"):
        plugins.with_plugins(UNetConfig | MemoryConfig, SEGMENTERS, SegmenterModelConfig, "arch")


def test_a_package_at_fault_ends_a_command_in_one_line(install: Install, tmp_path: Path) -> None:
    install({SEGMENTERS: "mynets.broken:Broken"})
    done = run("-m", "maskcast", "train_masker", "--help", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: mynets: plugin 'broken'") and done.stderr.count("\n") == 1


class Networks(MaskerModelConfig):
    """A masker whose author has forgotten something."""

    channels: int = 3
    stride: int = 1

    def network(self, channels: int) -> tuple[Any, int]:
        return torch.nn.Conv2d(3, self.channels, self.stride, self.stride), 2


class Stateless(MemoryConfig):
    stateful: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            Networks(stride=2),
            r"test_plugins\.Networks\.network: in training mode the network returned a tensor \(2, 3, 16, 24\); "
            r"return logits of shape \(2, 3, 32, 48\): samples, channels, height, width$",
        ),
        (
            Networks(channels=1),
            r"Networks\.network: .* a tensor \(2, 1, 32, 48\); return logits of shape \(2, 3, 32, 48\)",
        ),
        (Stateless(), r"Stateless\.stateful is False, Memory\.stateful is True; make them equal$"),
    ],
)
def test_what_an_author_has_forgotten_is_told(model: SegmenterModelConfig, said: str, tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    params = TrainMasker.model_validate(TRAINING).model_copy(update={"model": model})
    with pytest.raises(MaskcastError, match=said):
        task = FrameTask(store, params, "")
        task.loss(task.batch(0), 0)


def of_nothing(base: type[Any], method: str) -> Any:
    """Returns a config whose author has forgotten the return of a method."""
    return type("Mine", (base,), {method: lambda self, *given, **named: None})()


def test_a_forgotten_return_is_told_in_one_line(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    said = r"Mine\.{} must return {}.*; it returned None \(is a return missing\?\)$"
    for method, base, expected in (
        ("network", MaskerModelConfig, "a pair: the network"),
        ("build", SegmenterModelConfig, "a Segmenter"),
    ):
        own = {"model": of_nothing(base, method)}
        params = TrainMasker.model_validate(TRAINING).model_copy(update=own)
        with pytest.raises(MaskcastError, match=said.format(method, expected)):
            FrameTask(store, params, "")
    params = TrainMasker.model_validate(TRAINING).model_copy(update={"loss": of_nothing(LossConfig, "build")})
    with pytest.raises(MaskcastError, match=said.format("build", "a module or function")):
        FrameTask(store, params, "")
    with pytest.raises(MaskcastError, match=said.format("build", "a Forecaster")):
        build_forecaster(of_nothing(ModelConfig, "build"), 3)
    with pytest.raises(MaskcastError, match=said.format("listing", "a Listing")):
        list_clips(of_nothing(SourceConfig, "listing"), tmp_path, **SIZES)


def test_a_network_without_its_divisor_is_told_so(tmp_path: Path) -> None:
    alone = type(
        "Alone", (MaskerModelConfig,), {"network": lambda self, channels: torch.nn.Conv2d(3, channels, 1)}
    )
    with pytest.raises(MaskcastError, match=r"Alone\.network must return a pair: .*; it returned Conv2d$"):
        alone().build(single_map("ab"))


def test_a_network_and_its_divisor_may_be_a_list_and_the_divisor_of_numpy() -> None:
    listed = type(
        "Listed",
        (MaskerModelConfig,),
        {"network": lambda self, channels: [torch.nn.Conv2d(3, channels, 1), np.int64(4)]},
    )
    assert listed().build(single_map("ab")).multiple == 4


def test_a_model_without_a_head_says_so() -> None:
    said = (
        r"^Networks: sets no head_name, .*; set it, e\.g\. to network\.head, or train_masker\.attributes to false$"
    )
    with pytest.raises(MaskcastError, match=said):
        Networks().head_of(UNetConfig(width=2).build(single_map("ab")))


class Returned(Memory):
    """Returns logits and state in another form."""

    def __init__(self, form: str, maps: Any) -> None:
        super().__init__(2, maps)
        self.form = form

    def forward(self, frames_BTHWC: torch.Tensor, state: Any = ()) -> Any:
        logits, state = super().forward(frames_BTHWC, state)
        forms = {
            "logits": logits,
            "bare": (logits[0], state),
            "state": (logits, state[0]),
            "maps": (logits * 2, state),
            "list of logits": ([*logits], state),
            "list as state": (logits, [*state]),
            "list": [logits, state],
            "dict as state": (logits, ({"memory": state[0]},)),
            "one number as state": (logits, (*state, torch.zeros(()))),
        }
        return forms[self.form]


class Kept(torch.nn.Module):
    """A network that keeps its weights, or what training changes, in some way."""

    scale: Any

    def __init__(self, form: str, channels: int) -> None:
        super().__init__()
        self.form, self.head = form, torch.nn.Conv2d(3, channels, 1)
        self.twice = torch.nn.ModuleList([torch.nn.Conv2d(3, 3, 1)] * 2) if form == "used twice" else []
        self.hidden = [torch.nn.Conv2d(3, 3, 1)] if form == "list" else []
        if form == "buffer":
            self.register_buffer("scale", torch.ones(()), persistent=False)
        else:
            self.scale = 1.0
        if form == "mask":
            self.register_buffer("mask", torch.full((2,), -torch.inf))

    def forward(self, x: torch.Tensor) -> Any:
        if self.training and self.form in ("number", "buffer"):
            self.scale = self.scale * 1.5
        for convolution in (*self.twice, *self.hidden):
            x = convolution(x)
        logits = self.head(x) * self.scale
        return {"out": logits} if self.form == "dict in eval mode" and not self.training else logits


class KeptConfig(MaskerModelConfig):
    arch: str = "kept"
    form: str = ""

    def network(self, channels: int) -> tuple[Any, int]:
        return Kept(self.form, channels), 1


def trained(model: SegmenterModelConfig, root: Path, **values: Any) -> FrameTask:
    """Returns the task after one epoch."""
    schedule = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "learning_rate": 0.01, "precision": "fp32"}
    params = TrainMasker.model_validate({"training": schedule, **values}).model_copy(update={"model": model})
    task = FrameTask(write_store(root / "clips"), params, "")
    fit(task, params.schedule, root / "resume")
    return task


@pytest.mark.parametrize(
    ("form", "said", "epochs"),
    [
        ("list", r"KeptConfig: built anew with its own weights, the network gives other results, ", 0),
        (
            "number",
            r"KeptConfig: built anew with its own weights, the network gives other results, ",
            1,
        ),
        (
            "buffer",
            r"KeptConfig: built anew with its own weights, the network gives other results, ",
            1,
        ),
        (
            "mask",
            r"^model: network\.mask has values that are not finite before the first .* persistent=False$",
            0,
        ),
        (
            "dict in eval mode",
            r"KeptConfig\.network: in eval mode the network returned dict; return ",
            0,
        ),
    ],
)
def test_a_network_that_would_not_be_saved_whole_is_told_so_before_it_is_trained_for_long(
    form: str, said: str, epochs: int, tmp_path: Path
) -> None:
    validated: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        scores = FrameTask.validate
        patch.setattr(FrameTask, "validate", lambda task: validated.append(1) or scores(task))
        with pytest.raises(MaskcastError, match=said):
            trained(KeptConfig(form=form), tmp_path)
    assert len(validated) == epochs


def test_a_module_that_is_used_twice_is_saved_and_averaged_once(tmp_path: Path) -> None:
    task = trained(KeptConfig(form="used twice"), tmp_path, ema=0.5)
    assert task.averaged is not None and task.averaged.average is not None
    save_model(tmp_path / "masker", task.averaged.average, KeptConfig(), num_classes=3, meta={})
    stored = load_file(tmp_path / "masker/model.safetensors")
    for name in ("weight", "bias"):
        assert torch.equal(stored[f"network.twice.0.{name}"], stored[f"network.twice.1.{name}"])
    before, live = stored["network.twice.0.bias"], task.student.state_dict()["network.twice.0.bias"]
    live.add_(1.0)
    task.averaged.update(1000)
    torch.testing.assert_close(task.averaged.average.state_dict()["network.twice.0.bias"], (before + live) / 2)


def test_a_state_that_does_not_begin_with_zeros_is_told_so(tmp_path: Path) -> None:
    class Ones(Memory):
        def forward(self, frames_BTHWC: torch.Tensor, state: Any = ()) -> Any:
            seen = torch.ones(len(frames_BTHWC), 8, *frames_BTHWC.shape[2:4])
            return super().forward(frames_BTHWC, state or (seen,))

    class OnesConfig(MemoryConfig):
        def build(self, maps: Any) -> Memory:
            return Ones(8, maps)

    own = {"model": OnesConfig(), "window": WindowParams(frames=2, chunk=2)}
    params = TrainMasker.model_validate(TRAINING).model_copy(update=own)
    task = WindowTask(write_store(tmp_path / "clips"), params, "")
    with pytest.raises(MaskcastError, match=r"Ones\.forward returns other logits without a state than with "):
        task.check_rebuilt()


@pytest.mark.parametrize("raised", [KeyError("depth"), TypeError("no depth"), ModuleNotFoundError("No einops")])
def test_a_package_that_cannot_build_a_trained_network_is_named(raised: Exception, tmp_path: Path) -> None:
    def build() -> Any:
        raise raised

    with pytest.raises(MaskcastError, match=r"KeptConfig cannot build its network \(\w+: .*\); fix package tests"):
        build_within_limit(tmp_path / "model.safetensors", KeptConfig(), build)


class ReturnedConfig(MemoryConfig):
    form: str

    def build(self, maps: Any) -> Returned:
        return Returned(self.form, maps)


@pytest.mark.parametrize("form", ["logits", "bare", "state", "maps", "dict as state", "one number as state"])
def test_a_segmenter_that_returns_another_form_is_told_so(form: str, tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    own = {"model": ReturnedConfig(form=form), "window": WindowParams(frames=2, chunk=2)}
    params = TrainMasker.model_validate(TRAINING).model_copy(update=own)
    task = WindowTask(store, params, "")
    said = r"test_plugins\.Returned\.forward (must return two tuples: the logits of 1 label map, |returned the )"
    with pytest.raises(MaskcastError, match=said):
        list(task.losses(task.batch(0), 0))


@pytest.mark.parametrize("form", ["list of logits", "list as state", "list"])
def test_a_segmenter_may_return_lists(form: str, tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    own = {"model": ReturnedConfig(form=form), "window": WindowParams(frames=2, chunk=1, burn_in=1)}
    params = TrainMasker.model_validate(TRAINING).model_copy(update=own)
    task = WindowTask(store, params, "")
    assert len(list(task.losses(task.batch(0), 0))) == 2


class Failing(Augmentation):
    """An augmentation that fails at some samples."""

    def change(self, frames_THWC: Any, masks: Any, random: Any) -> Any:
        raise ZeroDivisionError


def test_the_sample_that_an_augmentation_fails_at_is_named(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    params = TrainMasker.model_validate(TRAINING).model_copy(update={"augment": Failing()})
    with pytest.raises(ZeroDivisionError) as caught:
        FrameTask(store, params, "").batch(3)
    assert re.fullmatch(r"at step 3, in frames (\d+) to \1 of clip 'train_[01]'", caught.value.__notes__[0])


class Future(Forecaster):
    """A forecaster whose author returns something else."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forecast(self, context: torch.Tensor, horizon: int) -> Any:
        return self.made(context)

    def loss(self, context: Any, target: Any) -> Any:
        return self.made(context)

    def reset_to_persistence(self) -> None:
        pass


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda context: context[:, :11], r"returns uint8 \(2, 9, 32, 48\); return uint8 \(2, 11, 32, 48\)$"),
        (lambda context: context.long(), r"returns int64 \(2, 9, 32, 48\); return uint8"),
        (lambda context: context[:, [0] * 11].float(), r"returns float32 \(2, 11, 32, 48\); return uint8"),
        (lambda context: context[:, [0] * 11].long() - 1, r"returns values in -1\.\.\d; return uint8"),
        (lambda context: context.numpy(), r"returns ndarray; return uint8"),
    ],
)
def test_a_forecaster_that_forecasts_another_form_is_told_so(made: Any, said: str, tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    setting = ForecastSetting(None, 9, 11, torch.device("cpu"))
    forecasts = forecast_clips(Future(made), setting, store, store, [store.select("val")])
    with pytest.raises(MaskcastError, match=rf"test_plugins\.Future\.forecast {said}"):
        next(forecasts)


class Confident(Future):
    """A forecaster whose author returns something else with the masks, and who takes no care of gradients."""

    def __init__(self, made: Any) -> None:
        super().__init__(made)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.gradients: list[bool] = []

    def forecast_with_confidence(self, context: torch.Tensor, horizon: int) -> Any:
        self.gradients.append((context * self.weight).requires_grad)
        return self.made(context[:, [8] * horizon])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda masks: masks, r"returns uint8 \(2, 11, 32, 48\); return a pair: the masks, and their confidence"),
        (lambda masks: (masks, masks.float()), r"returns a confidence float32 \(2, 11, 32, 48\); return uint8"),
        (lambda masks: (masks, masks[:, 0]), r"returns a confidence uint8 \(2, 32, 48\); return uint8 \(2, 11"),
        (lambda masks: (masks[:, 1:], None), r"returns masks uint8 \(2, 10, 32, 48\); return uint8 \(2, 11"),
    ],
)
def test_a_confidence_of_another_form_is_told_so(made: Any, said: str, tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    setting = ForecastSetting(None, 9, 11, torch.device("cpu"))
    forecasts = forecast_clips(Confident(made), setting, store, store, [store.select("val")])
    with pytest.raises(MaskcastError, match=rf"test_plugins\.Confident\.forecast_with_confidence {said}"):
        next(forecasts)


def test_forecasting_keeps_no_graph_of_gradients(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    setting = ForecastSetting(None, 9, 11, torch.device("cpu"))
    model = Confident(lambda masks: (masks, masks))
    ((_, forecast),) = forecast_clips(model, setting, store, store, [store.select("val")])
    assert model.gradients == [False] and forecast.confidence is not None


def test_a_forecast_of_other_integers_is_taken(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    setting = ForecastSetting(None, 9, 11, torch.device("cpu"))
    last = Future(lambda context: context[:, [8] * 11].long())
    ((clips, forecast),) = forecast_clips(last, setting, store, store, [store.select("val")])
    assert forecast.masks.dtype == np.uint8 and forecast.masks.any()
    for clip, masks_hHW in zip(clips, forecast.masks, strict=True):
        np.testing.assert_array_equal(masks_hHW, store.masks(clip)[[8] * 11])


@pytest.mark.parametrize("made", [(torch.ones(()), {}), [torch.ones(()), {}], (torch.ones(1), {})])
def test_a_loss_of_one_number_is_taken_in_any_pair(made: Any) -> None:
    task = ForecastTask.__new__(ForecastTask)
    task.model = Future(lambda context: made)
    loss, terms = task.loss((torch.zeros(1), torch.zeros(1)), 0)
    assert loss.shape == () and loss == 1 and terms == {}


def test_terms_of_a_loss_are_logged_as_numbers_without_a_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)
    given = {"a": weight * 2, "b": np.float32(3), "c": 4}
    task = ForecastTask.__new__(ForecastTask)
    task.model = Future(lambda context: (weight.sum(), given))
    _, terms = task.loss((torch.zeros(1), torch.zeros(1)), 0)
    assert isinstance(terms["a"], torch.Tensor) and terms["a"].shape == () and not terms["a"].requires_grad
    assert {name: float(value) for name, value in terms.items()} == {"a": 2, "b": 3, "c": 4}


@pytest.mark.parametrize(
    ("made", "remade", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0005], False),
        ([1.0, 2.0], [1.0, 2.1], True),
        ([1.0, 2.0], [1.0, 2.0, 3.0], True),
        ([1.0, 2.0], [1.0, float("nan")], True),
        ([1.0, float("-inf")], [1.0, float("-inf")], False),  # a class that a network excludes
        ([1.0, float("-inf")], [2.0, float("-inf")], True),
    ],
)
def test_results_differ_by_more_than_rounding(made: list[float], remade: list[float], expected: bool) -> None:
    assert differ(torch.tensor(made), torch.tensor(remade)) is expected


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"a": torch.ones(3)}, r"a term 'a' \(\(3,\)\)"),
        ({"a": "x"}, r"a term 'a' \(str\)"),
        ({1: 1.0}, r"a term 1 \(float\)"),
        ({"grad_norm": 7.0}, r"a term 'grad_norm' \(float\)"),
    ],
)
def test_terms_of_a_loss_that_are_no_numbers_or_hide_those_of_the_step_are_told(terms: Any, said: str) -> None:
    task = ForecastTask.__new__(ForecastTask)
    task.model = Future(lambda context: (torch.ones(()), terms))
    with pytest.raises(
        MaskcastError, match=rf"^\S+\.Future\.loss returns {said}; terms are numbers .* learning_rate$"
    ):
        task.loss((torch.zeros(1), torch.zeros(1)), 0)


@pytest.mark.parametrize("made", [torch.zeros(()), (torch.zeros(3), {}), (torch.zeros(()), 1.0), None])
def test_a_forecaster_whose_loss_is_of_another_form_is_told_so(made: Any) -> None:
    task = ForecastTask.__new__(ForecastTask)
    task.model = Future(lambda context: made)
    with pytest.raises(
        MaskcastError, match=r"^\S+\.Future\.loss must return a pair: the loss, a tensor of one number, and"
    ):
        task.loss((torch.zeros(1), torch.zeros(1)), 0)
