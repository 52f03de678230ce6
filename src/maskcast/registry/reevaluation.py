"""Evaluates a registered version on the current data of a pipeline, so that new models can be compared with it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import pluralize, read_json
from maskcast.registry.bundle import PARTS, read_bundle
from maskcast.registry.loading import download
from maskcast.registry.store import Registry
from maskcast.runner.dvc_calls import Call, params_of, read_calls, sources_of
from maskcast.runner.run import run_stage

PORTS = {"segmenter": "masker"}  # ports of parts of a bundle that are named otherwise
ENCODER = "encoder"  # port of the encoder that a masker started from


def evaluate_version(registry: Registry, which: str, pipeline: Path) -> None:
    """Runs the evaluating and the registering stage of a pipeline with the weights of a version.

    Stages between the models and the evaluation, such as `generate_masks`, run, too. All outputs are written to a
    temporary folder. The version keeps its number and gets the new evaluation.

    Args:
        registry: the registered model.
        which: number or alias.
        pipeline: folder of a dvc.yaml whose data exist, as after `dvc repro`.

    Raises:
        MaskcastError: the version was not registered by a stage, the pipeline does not register models of this
            kind and name, data are missing, or a stage fails.
    """
    version = registry.find(which)
    title = f"{registry.name} version {version.number}"
    measure = registry.evaluation(version).measure
    file = pipeline / "dvc.yaml"
    calls, _ = read_calls(file)
    registering = [entry for entry, call in calls.items() if call.stage.name == measure.registers]
    if len(registering) != 1:
        raise MaskcastError(
            f"{file}: {pluralize(len(registering), 'stage')} {measure.registers}, which {title} needs; give the "
            "folder of a pipeline with one as --pipeline"
        )
    (last,) = registering
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
        weights = download(registry, version, Path(scratch)) / "data"
        parts = PARTS[read_bundle(weights, version.digest).kind]
        models = {calls[last].ports[PORTS.get(part, part)]: weights / part for part in parts}
        say(f"evaluating {title} on the data of {file}")
        rerun = _Rerun(pipeline, Path(scratch, "outputs"), calls, models)
        rerun.run(last)
        report = rerun.written[calls[last].ports["registration"]]
        registered = read_json(report, "a registration")["versions"]
    if registered.get(registry.name) != version.number:
        raise MaskcastError(
            f"{title}: {file} registered {registered} instead, as its {measure.registers} names other models, or "
            "its clips have another size or other classes; pass --name, or --pipeline"
        )


@dataclass
class _Rerun:
    """Runs stages of a pipeline with other models.

    Attributes:
        folder: of the pipeline.
        scratch: folder of the outputs.
        calls: the stage calls of the pipeline.
        models: the folder to use instead of each model's path.
        written: the outputs of stages that ran, by their path in the pipeline.
    """

    folder: Path
    scratch: Path
    calls: Mapping[str, Call]
    models: Mapping[str, Path]
    written: dict[str, Path] = field(default_factory=dict)

    def run(self, entry: str) -> None:
        """Runs a stage, after those before it that use the models."""
        call, sources = self.calls[entry], sources_of(self.calls)[entry]
        inputs = {}
        for port, path in call.paths("in").items():
            if port == ENCODER:  # it is registered on its own
                continue
            if path in self.models:
                inputs[port] = self.models[path]
                continue
            if path not in self.written and port in sources and self._uses_models(sources[port]):
                self.run(sources[port])
            inputs[port] = self.written.get(path, self.folder / path)
        outputs = {
            port: self.scratch / path.replace("..", "__").lstrip("/") for port, path in call.paths("out").items()
        }
        for output in outputs.values():
            output.parent.mkdir(parents=True, exist_ok=True)
        values, _ = params_of(self.folder, call)
        file = self.folder / call.params_file
        run_stage(call.stage.name, values, name=call.name, where=f"{file}: {call.name}", **inputs, **outputs)
        self.written |= {path: outputs[port] for port, path in call.paths("out").items()}

    def _uses_models(self, entry: str) -> bool:
        sources = sources_of(self.calls)[entry]
        return any(
            path in self.models or (port in sources and self._uses_models(sources[port]))
            for port, path in self.calls[entry].paths("in").items()
        )
