"""The contract of a stage: its typed signature is its interface for the command line, DVC and Kubeflow.

A stage is a keyword-only function of input paths, output paths and one params class; ``run.run_stage`` runs it. A
stage with an output ``metrics`` trains or evaluates. It is tracked, and has one optional output that is not in its
signature: ``page``, the HTML page of the run, which ``run_stage`` writes and logs to MLflow.

A pipeline may run a stage twice under two names, e.g. a first and a second ``train_masker``. The name is used for
the section of params, the MLflow run and the page. By default it is the stage's own name.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from maskcast.errors import MaskcastError
from maskcast.params import Params

InPath = Annotated[Path, "in"]
OutPath = Annotated[Path, "out"]
Direction = Literal["in", "out"]


@dataclass(frozen=True)
class Port:
    """One input or output of a stage."""

    name: str
    direction: Direction
    optional: bool


@dataclass(frozen=True)
class Stage:
    """A stage, as described by its signature."""

    name: str
    function: Callable[..., None]
    params: type[Params]
    ports: tuple[Port, ...]

    @property
    def tracked(self) -> bool:
        """Whether it trains or evaluates, and so has an MLflow run and a page."""
        return any(port.name == "metrics" for port in self.ports)

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    def port_description(self, port: str) -> str:
        """The description of a port in its docstring."""
        if port == "page":
            return "HTML: the page of the run"
        match = re.search(rf"^    {port}: (.+(?:\n     +.+)*)", inspect.getdoc(self.function) or "", re.MULTILINE)
        assert match, f"{self.name}: the docstring does not describe {port}"
        return " ".join(match[1].split()).rstrip(".")


@dataclass(frozen=True)
class Job:
    """One run of a stage, as plain values that can be passed to another process."""

    stage: str
    name: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]


_REGISTRY: dict[str, Stage] = {}
_running: ContextVar[str | None] = ContextVar("maskcast_running", default=None)


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a function as a stage; raises an error at import if its signature breaks the contract."""
    hints = get_type_hints(function, include_extras=True)
    ports = []
    params: type[Params] | None = None
    for name, parameter in inspect.signature(function).parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, (
            f"{function.__name__}: {name} must be keyword-only"
        )
        if name == "params":
            params = hints[name]
        else:
            ports.append(_port(name, hints[name]))
    assert params is not None and issubclass(params, Params), f"{function.__name__} needs params: Params"
    if any(port.name == "metrics" for port in ports):
        ports.append(Port("page", "out", optional=True))
    _REGISTRY[function.__name__] = Stage(function.__name__, function, params, tuple(ports))
    return function


def stage_names() -> list[str]:
    """Returns the names of all stages: the modules of ``maskcast.stages``."""
    folder = Path(__file__).parents[1] / "stages"  # stages are looked up by name, not imported here
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def get_stage(name: str) -> Stage:
    """Returns the stage ``name``; only its module is imported.

    Raises:
        MaskcastError: the stage does not exist; the message lists all stages.
    """
    if name not in _REGISTRY:
        if name not in stage_names():
            raise MaskcastError(f"unknown stage {name!r}; stages: {', '.join(stage_names())}")
        importlib.import_module(f"maskcast.stages.{name}")
    return _REGISTRY[name]


def check_name(name: str, stage: str) -> None:
    """Checks the name of a stage in a pipeline.

    Raises:
        MaskcastError: it is not valid for sections, runs and parameters, or is the name of another stage.
    """
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name):
        raise MaskcastError(f"--name {name!r}: use up to 40 lower-case letters, digits and _, first a letter")
    if name != stage and name in stage_names():
        raise MaskcastError(f"--name {name}: is another stage, not {stage}; choose a name that no stage has")


@contextmanager
def running_as(name: str, the_stage: Stage) -> Iterator[None]:
    """A context that gives the running stage a name, which errors use as the section of its keys."""
    token = _running.set(name)
    try:
        yield
    except MaskcastError as error:
        keys = "|".join(the_stage.params.model_fields)
        pattern = rf"^{the_stage.name}(?=: )|\b{the_stage.name}(?=\.({keys})\b)"
        error.args = (re.sub(pattern, name, str(error)), *error.args[1:])
        raise
    finally:
        _running.reset(token)


def running_name(stage: str) -> str:
    """Returns the name of the running stage; the given one outside of ``run_stage``."""
    return _running.get() or stage


def _port(name: str, hint: Any) -> Port:
    optional = get_origin(hint) is not Annotated
    for candidate in get_args(hint) if optional else (hint,):
        if get_origin(candidate) is Annotated and candidate.__metadata__[0] in get_args(Direction):
            return Port(name, candidate.__metadata__[0], optional)
    raise TypeError(f"port {name!r} must be InPath, OutPath or InPath | None, not {hint}")
