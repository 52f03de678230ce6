"""The contract of a stage: its typed signature is its API for the command line, DVC and Kubeflow alike.

A stage is a keyword-only function of input paths, output paths and one params class. ``run_stage`` is the one
way to run it: validate, open a tracked run, call, then move every output into place. Outputs appear whole or
not at all: the stage writes to ``<output>.partial``, which is renamed on success and removed on failure.

A stage with an output ``metrics`` learns or measures. It is tracked, and has one output more than its signature
names: ``page`` (optional), the HTML page of the run, which ``run_stage`` writes; MLflow keeps the same file.
"""

import importlib
import inspect
import json
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from maskcast.errors import MaskcastError, disk_errors_said
from maskcast.params import Params, validate
from maskcast.progress import first_process, listening

InPath = Annotated[Path, "in"]
OutPath = Annotated[Path, "out"]
Direction = Literal["in", "out"]


class StageParams(Params):
    """Base of a stage's params class: one section of ``params.yaml``."""


@dataclass(frozen=True)
class Port:
    """One input or output of a stage."""

    name: str
    direction: Direction
    optional: bool


@dataclass(frozen=True)
class Stage:
    """A stage as read from its signature."""

    name: str
    function: Callable[..., None]
    params: type[StageParams]
    ports: tuple[Port, ...]

    @property
    def tracked(self) -> bool:
        """Whether it learns or measures, and so is one MLflow run with a page."""
        return any(port.name == "metrics" for port in self.ports)

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]


_REGISTRY: dict[str, Stage] = {}


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a function as a stage; a signature that breaks the contract fails at import."""
    hints = get_type_hints(function, include_extras=True)
    ports = []
    params: type[StageParams] | None = None
    for name, parameter in inspect.signature(function).parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, (
            f"{function.__name__}: {name} must be keyword-only"
        )
        if name == "params":
            params = hints[name]
        else:
            ports.append(_port(name, hints[name]))
    assert params is not None and issubclass(params, StageParams), f"{function.__name__} needs params: StageParams"
    if any(port.name == "metrics" for port in ports):
        ports.append(Port("page", "out", optional=True))
    _REGISTRY[function.__name__] = Stage(function.__name__, function, params, tuple(ports))
    return function


def stage_names() -> list[str]:
    """Returns the names of all stages: the modules of ``maskcast.stages``."""
    from maskcast import stages

    return sorted(module.name for module in pkgutil.iter_modules(stages.__path__))


def get_stage(name: str) -> Stage:
    """Returns the stage ``name``, importing its module alone.

    Raises:
        MaskcastError: if there is no such stage; the line lists those there are.
    """
    if name not in stage_names():
        raise MaskcastError(f"no stage {name!r}; stages: {', '.join(stage_names())}")
    importlib.import_module(f"maskcast.stages.{name}")
    return _REGISTRY[name]


def resume_dir(out: Path) -> Path:
    """Returns the folder where a stage keeps what a killed run needs to go on: ``<output>.resume``.

    It outlives a crash and a kill, and ``run_stage`` removes it once the output is in place. It lies beside the
    output, or, where that is lost with its pod, below ``MASKCAST_RESUME_DIR`` (on a volume), by Kubeflow run.
    """
    name = out.name.removesuffix(".partial") + ".resume"
    if root := os.environ.get("MASKCAST_RESUME_DIR"):
        return Path(root, os.environ.get("KFP_RUN_ID", "")) / name
    return out.with_name(name)


def run_stage(
    name: str, params: Mapping[str, Any], *, where: str = "params", **paths: str | Path
) -> dict[str, float]:
    """Runs one stage and returns its metrics (empty for a stage without the output ``metrics``).

    Where ``training.processes`` or ``training.nodes`` ask for more processes, it starts them and waits. Started by
    torchrun it is one of them.

    Args:
        name: the stage.
        params: its params as plain values.
        where: what errors name as the place of the params, e.g. ``params.yaml: train_masker``.
        **paths: one path per port; an optional input may be left out.

    Raises:
        MaskcastError: on bad params, missing or unknown ports, unreadable inputs, unwritable outputs, a full disk.
    """
    the_stage = get_stage(name)
    values = validate(the_stage.params, params, where)
    inputs, outputs = _resolve(the_stage, paths)
    partials = {port: out.with_name(out.name + ".partial") for port, out in outputs.items()}
    training = getattr(values, "training", None)  # of the stages that train
    with outputs_whole(outputs, partials) if first_process() else nullcontext():
        if training is None or training.processes * training.nodes == 1 or "RANK" in os.environ:
            return execute(the_stage, values, inputs, partials)
        from maskcast.launch import launch

        return launch(name, params, inputs, partials, nodes=training.nodes, processes=training.processes)


def execute(
    the_stage: Stage, values: StageParams, inputs: Mapping[str, Path], outputs: Mapping[str, Path]
) -> dict[str, float]:
    """Runs a stage in this process and returns its metrics.

    Of several processes the first is tracked and writes the outputs; the others write where nobody looks.
    """
    own = {port: path for port, path in outputs.items() if port != "page" or not the_stage.tracked}
    with disk_errors_said():
        if not first_process():
            with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
                os.environ.pop("MASKCAST_RESUME_DIR", None)  # what it would resume from is the first one's
                the_stage.function(**inputs, **{port: Path(scratch, port) for port in own}, params=values)
            return {}
        if not the_stage.tracked:
            the_stage.function(**inputs, **own, params=values)
            return {}
        from maskcast.provenance import run_tags
        from maskcast.report.page import Page
        from maskcast.tracking import tracked_run

        run_id_file = resume_dir(next(iter(outputs.values()))) / "mlflow_run_id"
        page = Page(the_stage.name)
        with tracked_run(the_stage.name, values, inputs, run_id_file) as run, listening(run, page):
            the_stage.function(**inputs, **own, params=values)
            metrics: dict[str, float] = json.loads(outputs["metrics"].read_text(encoding="utf-8"))
            run.metrics(metrics, None)
            run.outputs({port: path for port, path in own.items() if port != "metrics"})
            with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
                file = Path(scratch, f"{the_stage.name}.html")
                page.write(file, metrics, values, run_tags(the_stage.name, values, inputs))
                run.file(file, "")
                if "page" in outputs:
                    shutil.copy(file, outputs["page"])
        return metrics


def _port(name: str, hint: Any) -> Port:
    optional = get_origin(hint) is not Annotated
    for candidate in get_args(hint) if optional else (hint,):
        if get_origin(candidate) is Annotated and candidate.__metadata__[0] in get_args(Direction):
            return Port(name, candidate.__metadata__[0], optional)
    raise TypeError(f"port {name!r} must be InPath, OutPath or InPath | None, not {hint}")


def _resolve(the_stage: Stage, paths: Mapping[str, str | Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Returns input and output paths by port; every input exists and every output's parent is a folder."""
    names = [port.name for port in the_stage.ports]
    for given in paths:
        if given not in names:
            raise MaskcastError(f"{the_stage.name} has no port {given!r}; ports: {', '.join(names)}")
    inputs, outputs = {}, {}
    for port in the_stage.ports:
        if port.name not in paths:
            if not port.optional:
                raise MaskcastError(
                    f"{the_stage.name}: --{port.name} is missing; give its {port.direction}put path"
                )
            continue
        path = Path(paths[port.name])
        if port.direction == "in":
            if not path.exists():
                raise MaskcastError(
                    f"{path}: no such input (--{port.name} of {the_stage.name}); run the stage that writes it"
                )
            inputs[port.name] = path
        else:
            outputs[port.name] = path
    return inputs, outputs


@contextmanager
def outputs_whole(outputs: Mapping[str, Path], partials: Mapping[str, Path]) -> Iterator[None]:
    """Moves the partial outputs into place when the block succeeds, removes them when it fails.

    Args:
        outputs: The final path of each output, by the flag that names it.
        partials: Where the block writes each of them; beside it.

    Raises:
        MaskcastError: An output cannot be written, or the disk is full.
    """
    made = _make_parents(outputs)
    for partial in partials.values():
        remove(partial)
    try:
        with disk_errors_said():
            yield
            for name in outputs:
                assert partials[name].exists(), f"the stage did not write its output {name!r}"
            for name, out in outputs.items():
                _replace(partials[name], out)
                remove(resume_dir(out))
    except BaseException:
        for partial in partials.values():
            remove(partial)
        for out in outputs.values():
            _drop_if_empty(resume_dir(out))
        for folder in reversed(made):
            _drop_if_empty(folder)
        raise


def _make_parents(outputs: Mapping[str, Path]) -> list[Path]:
    """Makes the folders that the outputs lie in and returns those that were not there, outermost first."""
    made = []
    for name, out in outputs.items():
        missing = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
        try:
            for folder in reversed(missing):
                folder.mkdir()
                made.append(folder)
            probe = out.with_name(out.name + ".partial")
            probe.touch()
            remove(probe)
        except OSError as error:
            reason = error.strerror or str(error)
            raise MaskcastError(f"{out}: cannot be written (--{name}: {reason}); choose a writable path") from None
    return made


def _replace(partial: Path, out: Path) -> None:
    """Renames ``partial`` to ``out``; an older output stands until the new one is ready."""
    old = out.with_name(out.name + ".old")
    remove(old)
    if out.exists() or out.is_symlink():
        out.rename(old)
    partial.rename(out)
    remove(old)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _drop_if_empty(folder: Path) -> None:
    """Removes a folder that holds nothing, or nothing but the id of a tracked run that never got far."""
    if folder.is_dir() and all(entry.name == "mlflow_run_id" for entry in folder.iterdir()):
        remove(folder)
