"""Registers a pipeline and its parts, a detector or a segmenter; each version is created atomically.

Artifacts are first uploaded to a run. Only then a version that refers to them is created, with all its tags. A
killed process leaves a run without versions, or versions of some models only. The next process finds these by
their digests and adds the missing ones.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from maskcast.progress import say
from maskcast.registry.artifact import Artifact, ModelEntry, make_artifact
from maskcast.registry.audit_trail import champion_for
from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.gate import judge
from maskcast.registry.gate_params import Gate
from maskcast.registry.kinds import KINDS
from maskcast.registry.page import write_page
from maskcast.registry.store import CANDIDATE, CHAMPION, EVALUATION, Registry, Version
from maskcast.registry.verdict import Verdict
from maskcast.runner.mlflow_errors import convert_mlflow_errors
from maskcast.runner.mlflow_run import end_run, open_run
from maskcast.runner.outputs import run_file
from maskcast.runner.provenance import Origin
from maskcast.writing import write_json

MAX_DESCRIPTION = 5000  # characters
CUT = "\n\n(The whole card is README.md of the artifact.)\n"


def register(
    entries: Iterable[ModelEntry],
    parts: Mapping[str, Path],
    record: EvaluationRecord,
    gate: Gate,
    origin: Origin,
    registration: Path,
    page: Path | None,
) -> None:
    """Registers new versions; sets the alias ``candidate`` if the evaluated model passes the gate; reports both.

    Args:
        entries: encoder, if one was trained, masker, forecaster and pipeline; or one detector or segmenter. The
            last one is the evaluated model, which is promoted; its tags name the others' versions.
        parts: folders that the training stages wrote.
        record: the evaluation of the pipeline, detector or segmenter.
        gate: requirements for the evaluated model.
        origin: provenance of the registering stage.
        registration: JSON file to write, with the gated model, the versions and the verdict with its numbers.
        page: HTML file to write, or None; MLflow gets it in any case, in the run of the registration.

    Raises:
        MaskcastError: a file of a part is damaged, the evaluated model is not the one given, the gate names a
            score that was not measured, or MLflow fails.
    """
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch, convert_mlflow_errors():
        artifacts = [
            make_artifact(Path(scratch, entry.about.kind), entry, parts, record, origin.tags) for entry in entries
        ]
        promoted = artifacts[-1]
        scored = {part: parts[part] for part in KINDS[promoted.kind].parts}
        record.check_models(**scored)  # they must not have been replaced since
        registry = Registry(promoted.name, creates=True)
        verdict = _verdict(registry, promoted.digest, record, gate)
        versions = _versions(artifacts, verdict, record, origin, run_file(registration))
        _point_candidate(registry, versions[promoted.name], verdict)
        model = registry.find(str(versions[promoted.name]))
        champion = (
            None if verdict.difference is None else registry.evaluation(registry.find(str(verdict.champion)))
        )
        file = Path(scratch, f"{origin.name}.html")
        write_page(file, model, record, champion, verdict, origin.params, dict(origin.facts))
        run_id = registry.evaluation_run(model)  # an older run if nothing is new
        registry.client.log_artifact(run_id, str(file))
        if page is not None:
            shutil.copy(file, page)
    write_json(registration, {"model": model.name, "versions": versions, **verdict.as_json()})
    say(f"gate: {model.name} version {model.number} {verdict.line}")
    if record.facts.get("split") == "train":
        say(
            f"warning: {record.place}: scores of split train, the training data of the model; evaluate another "
            "split"
        )


def add_evaluation(
    registry: Registry, number: int, record: EvaluationRecord, origin: Origin, key_file: Path
) -> None:
    """Replaces the evaluation of a version; its aliases and the verdict of its gate stay.

    Args:
        registry: the registered model.
        number: of the version.
        record: the new evaluation.
        origin: provenance of the evaluation; its input ``report`` has the files.
        key_file: see ``open_run``.
    """
    with _run(registry.client, record, origin, key_file) as (run_id, _):
        registry.tag(number, _score_tags(record) | {"maskcast.evaluation_run": run_id} | _evaluation_tags(record))


def _versions(
    artifacts: Sequence[Artifact], verdict: Verdict, record: EvaluationRecord, origin: Origin, key_file: Path
) -> dict[str, int]:
    """Returns the version of each registered model by name; creates missing ones.

    Args:
        artifacts: in the order of registration; the last is the evaluated model.
        verdict: on the evaluated model.
        record: evaluation of the last model.
        origin: provenance of the registering stage.
        key_file: stores the key of the run, for resuming a killed registration.
    """
    registries = {artifact.kind: Registry(artifact.name, creates=True) for artifact in artifacts}
    known = {artifact.kind: _with_digest(registries[artifact.kind], artifact.digest) for artifact in artifacts}
    promoted = artifacts[-1].kind
    versions = {found.name: found.number for found in known.values() if found is not None}
    evaluated = known[promoted]
    same = (
        evaluated is not None
        and evaluated.tags.get("maskcast.evaluation") == record.digest
        and registries[promoted].has_evaluation(evaluated)
    )
    if not same or None in known.values():
        evaluation, scores = _evaluation_tags(record), _score_tags(record)
        with _run(registries[promoted].client, record, origin, key_file) as (run_id, artifact_uri):
            evaluation = {"maskcast.evaluation_run": run_id} | evaluation
            for artifact in (each for each in artifacts if known[each.kind] is None):
                registry = registries[artifact.kind]
                registry.client.log_artifacts(run_id, str(artifact.folder), artifact.kind)
                tags = {**origin.tags, **evaluation, "maskcast.digest": artifact.digest}
                if artifact.kind != "encoder":  # the evaluation scores models that started from it
                    tags |= scores
                if artifact.kind == promoted:  # created with its verdict and the versions of its parts
                    tags |= _verdict_tags(verdict) | _part_tags(versions)
                source = f"{artifact_uri}/{artifact.kind}"
                versions[artifact.name] = _create_once(registry, source, run_id, tags, artifact)
            # Existing parts keep the evaluation of their registration. Its digest is set last, so that after a
            # kill all of this is repeated.
            registries[promoted].tag(versions[artifacts[-1].name], scores | evaluation)
    for kind, found in known.items():
        if found is not None:
            say(f"registry: these {kind} weights are already registered as {found.name} version {found.number}")
    registry = registries[promoted]
    others = {name: number for name, number in versions.items() if name != registry.name}
    registry.tag(versions[registry.name], _part_tags(others))  # the encoder may be newer than its pipeline
    return dict(sorted(versions.items()))


def _verdict(registry: Registry, digest: str, record: EvaluationRecord, gate: Gate) -> Verdict:
    """Checks an evaluation against the gate and the champion, unless it is the champion's own."""
    in_use = next((each for each in registry.versions() if CHAMPION in each.aliases), None)
    champion = champion_for(registry, record.facts["data"])
    if champion is None or digest in {each.digest for each in (champion, in_use) if each is not None}:
        return judge(record, None, None, gate)
    same_data = champion.tags.get("maskcast.data") == record.facts["data"]
    return judge(record, champion.number, registry.evaluation(champion) if same_data else None, gate)


def _point_candidate(registry: Registry, number: int, verdict: Verdict) -> None:
    registry.tag(number, _verdict_tags(verdict))
    aliases = registry.aliases()
    if verdict.passed and aliases.get(CHAMPION) != number:
        registry.set_alias(CANDIDATE, number)
    elif aliases.get(CANDIDATE) == number:
        registry.drop_alias(CANDIDATE)


@contextmanager
def _run(client: Any, record: EvaluationRecord, origin: Origin, key_file: Path) -> Iterator[tuple[str, str]]:
    """A context with the run of the registration, which gets the evaluation; yields id and artifact URI."""
    run_id = open_run(client, origin, key_file)
    try:
        for name in record.measure.files:
            client.log_artifact(run_id, str(origin.inputs["report"] / name), EVALUATION)
        yield run_id, client.get_run(run_id).info.artifact_uri
    except BaseException as error:
        with suppress(Exception):  # as the work may have failed because of MLflow, whose first error says more
            end_run(client, run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", key_file)
        raise
    end_run(client, run_id, "FINISHED", key_file)


def _create_once(registry: Registry, source: str, run_id: str, tags: Mapping[str, str], artifact: Artifact) -> int:
    """Creates a version; if another process creates an equal one at the same time, only the first is kept.

    Each process lists the versions again after creating its own. Numbers follow the order of creation, so the
    process with the higher number sees the other version and deletes its own. If it is killed in between, an
    unused version remains, as the first of equal digests counts.
    """
    number = registry.create(source, run_id, tags, _fit(artifact.card), KINDS[artifact.kind].purpose)
    first = _with_digest(registry, tags["maskcast.digest"])
    assert first is not None
    if first.number == number:
        say(f"registry: registered {registry.name} version {number}")
    else:
        registry.delete(number)
        say(f"registry: another process has registered these weights as {registry.name} version {first.number}")
    return first.number


def _fit(card: str) -> str:
    """Returns a card, truncated to the longest description that MLflow's databases accept."""
    if len(card) <= MAX_DESCRIPTION:
        return card
    return card[: MAX_DESCRIPTION - len(CUT)].rpartition("\n")[0] + CUT


def _with_digest(registry: Registry, digest: str) -> Version | None:
    """Returns the first version with a bundle's digest whose files still exist."""
    same = (version for version in reversed(registry.versions()) if version.digest == digest)
    return next(filter(registry.has_files, same), None)


def _evaluation_tags(record: EvaluationRecord) -> dict[str, str]:
    """Returns the tags of an evaluation, its digest last."""
    facts = {f"maskcast.{name}": str(record.facts[name]) for name in record.measure.about}
    return facts | {"maskcast.evaluation": record.digest}


def _score_tags(record: EvaluationRecord) -> dict[str, str]:
    scores = {name: record.scores[name] for name in record.measure.headline if name in record.scores}
    return {f"maskcast.score.{name}": f"{value:.6f}" for name, value in scores.items()}


def _part_tags(versions: Mapping[str, int]) -> dict[str, str]:
    return {f"maskcast.part.{name}": str(number) for name, number in versions.items()}


def _verdict_tags(verdict: Verdict) -> dict[str, str]:
    return {
        "maskcast.verdict": "passed" if verdict.passed else "failed",
        "maskcast.gate": json.dumps(verdict.as_json()),
    }
