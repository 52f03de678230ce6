"""The contract of a stage: its typed signature is its API for the command line, DVC and Kubeflow alike.

A stage is a keyword-only function of input paths, output paths and one params class; ``run.run_stage`` runs it.
A stage with an output ``metrics`` learns or measures. It is tracked, and has one output more than its signature
names: ``page`` (optional), the HTML page of the run, which ``run_stage`` writes; MLflow keeps the same file.

A pipeline may hold a stage twice, under two names, e.g. a first and a second ``train_masker``. The name is that of
the section of params, of the MLflow run and of the page; a stage that is given none goes by its own.
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
    """A stage as read from its signature."""

    name: str
    function: Callable[..., None]
    params: type[Params]
    ports: tuple[Port, ...]

    @property
    def tracked(self) -> bool:
        """Whether it learns or measures, and so is one MLflow run with a page."""
        return any(port.name == "metrics" for port in self.ports)

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    def meaning(self, port: str) -> str:
        """What its docstring says of a port."""
        if port == "page":
            return "HTML: the page of the run"
        found = re.search(rf"^    {port}: (.+(?:\n     +.+)*)", inspect.getdoc(self.function) or "", re.MULTILINE)
        assert found, f"{self.name}: say in the docstring what {port} is"
        return " ".join(found[1].split()).rstrip(".")


@dataclass(frozen=True)
class Job:
    """One run of a stage; plain values, so that it can be handed to another process."""

    stage: str
    name: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]


_REGISTRY: dict[str, Stage] = {}
_running: ContextVar[str | None] = ContextVar("maskcast_running", default=None)


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a function as a stage; a signature that breaks the contract fails at import."""
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
    folder = Path(__file__).parents[1] / "stages"  # looked up by name: what runs stages imports none
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def get_stage(name: str) -> Stage:
    """Returns the stage ``name``, importing its module alone.

    Raises:
        MaskcastError: if there is no such stage; the line lists those there are.
    """
    if name not in _REGISTRY:
        if name not in stage_names():
            raise MaskcastError(f"no stage {name!r}; stages: {', '.join(stage_names())}")
        importlib.import_module(f"maskcast.stages.{name}")
    return _REGISTRY[name]


def check_name(name: str, stage: str) -> None:
    """Makes sure that a stage may go by a name.

    Raises:
        MaskcastError: it cannot name a section, a run and a parameter alike, or it is the name of another stage.
    """
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name):
        raise MaskcastError(f"--name {name!r}: write up to 40 lower-case letters, digits and _, a letter first")
    if name != stage and name in stage_names():
        raise MaskcastError(f"--name {name}: is another stage than {stage}; choose a name that is none")


@contextmanager
def running_as(name: str, the_stage: Stage) -> Iterator[None]:
    """Lets the stage that runs in the block go by a name: errors tell its keys by that, their section."""
    token = _running.set(name)
    try:
        yield
    except MaskcastError as error:
        keys = "|".join(the_stage.params.model_fields)
        own = rf"^{the_stage.name}(?=: )|\b{the_stage.name}(?=\.({keys})\b)"
        error.args = (re.sub(own, name, str(error)), *error.args[1:])
        raise
    finally:
        _running.reset(token)


def running_name(stage: str) -> str:
    """Returns the name that the running stage goes by; its own outside of ``run_stage``."""
    return _running.get() or stage


def _port(name: str, hint: Any) -> Port:
    optional = get_origin(hint) is not Annotated
    for candidate in get_args(hint) if optional else (hint,):
        if get_origin(candidate) is Annotated and candidate.__metadata__[0] in get_args(Direction):
            return Port(name, candidate.__metadata__[0], optional)
    raise TypeError(f"port {name!r} must be InPath, OutPath or InPath | None, not {hint}")
