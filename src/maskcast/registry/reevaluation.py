"""Evaluates a registered version on the current data of a pipeline, so that new models can be compared with it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.registry.bundle import read_bundle
from maskcast.registry.evaluations import read_evaluation
from maskcast.registry.kinds import KINDS
from maskcast.registry.loading import download
from maskcast.registry.register import add_evaluation
from maskcast.registry.store import Registry
from maskcast.runner.dvc_calls import Call, params_of, path_within, read_calls, sources_of
from maskcast.runner.provenance import Origin
from maskcast.runner.run import run_stage


def evaluate_version(registry: Registry, which: str, pipeline: Path) -> None:
    """Runs the evaluating stage of a pipeline with the weights of a version, which gets the new evaluation.

    Stages between the models and the evaluation, such as `generate_masks`, run, too. All outputs are written to a
    temporary folder. The version keeps its number, its aliases and the verdict of its gate.

    Args:
        registry: the registered model.
        which: number or alias.
        pipeline: folder of a dvc.yaml whose data exist, as after `dvc repro`.

    Raises:
        MaskcastError: the version was not registered by a stage or is part of a pipeline, the pipeline does not
            evaluate models of this kind, data are missing, or a stage fails.
    """
    version = registry.find(which)
    title = f"{registry.name} version {version.number}"
    measure = registry.evaluation(version).measure
    file = pipeline / "dvc.yaml"
    calls, _ = read_calls(file)
    sources = sources_of(calls)
    found = [
        entry
        for entry, call in calls.items()
        if call.stage.name == measure.registers and "report" in sources[entry]
    ]
    if len(found) != 1:
        raise MaskcastError(
            f"{file}: {pluralize(len(found), 'stage')} {measure.registers}, which {title} needs; give the "
            "folder of a pipeline with one as --pipeline"
        )
    registering = calls[found[0]]
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
        weights = download(registry, version, Path(scratch)) / "data"
        kind = KINDS[read_bundle(weights, version.digest).kind]
        if kind.measure is None:
            raise MaskcastError(f"{title}: is part of a pipeline; evaluate the pipeline")
        parts = {part: weights / part for part in kind.parts}
        by_port = {kind.ports.get(part, part): folder for part, folder in parts.items()}
        models = {registering.ports[port]: folder for port, folder in by_port.items()}
        say(f"evaluating {title} on the data of {file}; outputs are temporary, MLflow keeps the pictures")
        rerun = _Rerun(pipeline, Path(scratch, "outputs"), calls, models)
        rerun.run(sources[found[0]]["report"])
        inputs = {
            "clips": pipeline / registering.ports["clips"],
            **by_port,
            "report": rerun.written[registering.ports["report"]],
        }
        record = read_evaluation(inputs["report"], (measure,))
        record.check_models(**parts)
        _, params = params_of(pipeline, registering)
        origin = Origin.of(measure.registers, params, inputs)
        add_evaluation(registry, version.number, record, origin, Path(scratch, "run"))
    scores = ", ".join(f"{name} {record.scores[name]:.4f}" for name in measure.listed if name in record.scores)
    say(f"evaluated {title}: {scores}")


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
            if path in self.models:
                inputs[port] = self.models[path]
                continue
            if path not in self.written and port in sources and self._uses_models(sources[port]):
                self.run(sources[port])
            inputs[port] = self.written.get(path, self.folder / path)
        outputs = {port: path_within(self.scratch, path) for port, path in call.paths("out").items()}
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
