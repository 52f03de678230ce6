"""Brings a pipeline and its parts, or a detector, into the registry, each version whole or not at all.

Artifacts are uploaded to a run first; only then a version appears that names them, and with it all its tags. A
process that is killed leaves a run without versions, or some of the models; the next one finds those by
their digest and adds what lacks.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskcast.progress import say
from maskcast.registry.artifact import Artifact, Entry, make_artifact
from maskcast.registry.bundle import PARTS, Kind
from maskcast.registry.card import PURPOSE
from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.gate import judge
from maskcast.registry.gate_params import Gate
from maskcast.registry.page import write_page
from maskcast.registry.store import CANDIDATE, CHAMPION, EVALUATION, Registry, Version
from maskcast.registry.trail import series_champion
from maskcast.registry.verdict import Verdict
from maskcast.runner.outputs import run_file
from maskcast.runner.provenance import Origin
from maskcast.runner.record import open_run
from maskcast.runner.refusals import user_errors_of_server
from maskcast.writing import write_json

# The last of what is registered is what was evaluated and is promoted; it names the others' versions.
ORDER: tuple[Kind, ...] = ("encoder", "masker", "forecaster", "pipeline", "detector", "segmenter")

MAX_DESCRIPTION = 5000  # characters
CUT = "\n\n(The whole card is README.md of the artifact.)\n"


def register(
    entries: Iterable[Entry],
    parts: Mapping[str, Path],
    record: EvaluationRecord,
    gate: Gate,
    origin: Origin,
    registration: Path,
    page: Path | None,
) -> None:
    """Registers what is new, points ``candidate`` to what was evaluated if it passes the gate, and says so.

    Args:
        entries: masker, forecaster, pipeline, and the encoder where one was trained; or one detector or segmenter.
        parts: the folders that the training stages wrote.
        record: the evaluation of the pipeline, detector or segmenter.
        gate: what that must reach.
        origin: what the stage that registers started from.
        registration: JSON file: the model that stood at the gate, the versions, and the verdict with its numbers.
        page: HTML file, where one is wanted; MLflow has it either way, in the run that registered the version.

    Raises:
        MaskcastError: a file of a part is damaged, another model was evaluated than what is there now, the gate
            names a score that was not measured, or MLflow does not do its part.
    """
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch, user_errors_of_server():
        artifacts = [
            make_artifact(Path(scratch, one.about.kind), one, parts, record, origin.tags)
            for one in sorted(entries, key=lambda one: ORDER.index(one.about.kind))
        ]
        promoted = artifacts[-1]
        scored = {part: parts[part] for part in PARTS[promoted.kind]}
        record.check_models(**scored)  # nobody has replaced them since
        registry = Registry(promoted.name, creates=True)
        verdict = _verdict(registry, promoted.digest, record, gate)
        versions = _versions(artifacts, verdict, record, origin, run_file(registration))
        _point_candidate(registry, versions[promoted.name], verdict)
        model = registry.find(str(versions[promoted.name]))
        champion = None if verdict.champion is None else registry.evaluation(registry.find(str(verdict.champion)))
        file = Path(scratch, f"{origin.name}.html")
        write_page(file, model, record, champion, verdict, origin.params, dict(origin.known))
        run_id = registry.evaluation_run(model)  # where nothing is new, an older one
        registry.client.log_artifact(run_id, str(file))
        if page is not None:
            shutil.copy(file, page)
    write_json(registration, {"model": model.name, "versions": versions, **verdict.as_json()})
    say(f"gate: {model.name} version {model.number} {verdict.line}")


def _versions(
    artifacts: Sequence[Artifact], verdict: Verdict, record: EvaluationRecord, origin: Origin, key_file: Path
) -> dict[str, int]:
    """Returns the version of each registered model by its name; those that are not there are created.

    Args:
        artifacts: in the order of registration; the last is what was evaluated.
        verdict: on that one.
        record: its evaluation.
        origin: what the stage that registers started from.
        key_file: remembers the run of a registration that was killed.
    """
    registries = {one.kind: Registry(one.name, creates=True) for one in artifacts}
    known = {one.kind: _with_digest(registries[one.kind], one.digest) for one in artifacts}
    promoted = artifacts[-1].kind
    versions: dict[str, int] = {}
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
            for one in artifacts:
                registry, found = registries[one.kind], known[one.kind]
                if found is None:
                    registry.client.log_artifacts(run_id, str(one.folder), one.kind)
                    tags = {**origin.tags, **evaluation, "maskcast.digest": one.digest}
                    if one.kind != "encoder":  # the evaluation scores what started from it
                        tags |= scores
                    if one.kind == promoted:  # born with its verdict, and with the versions of its parts
                        tags |= _verdict_tags(verdict) | _part_tags(versions)
                    source = f"{artifact_uri}/{one.kind}"
                    versions[one.name] = _create_once(registry, source, run_id, tags, one)
                else:
                    versions[one.name] = found.number
                if one.kind == promoted:  # the parts keep the evaluation that they came with
                    # The digest of the evaluation last: who is killed before it does all of this again.
                    registry.tag(versions[one.name], scores | evaluation)
    for kind, found in known.items():
        if found is not None:
            versions[found.name] = found.number
            say(f"registry: {found.name} has these {kind} weights already, as version {found.number}")
    own = registries[promoted]
    others = {name: number for name, number in versions.items() if name != own.name}
    own.tag(versions[own.name], _part_tags(others))  # an encoder may be newer than its pipeline
    return dict(sorted(versions.items()))


def _verdict(registry: Registry, digest: str, record: EvaluationRecord, gate: Gate) -> Verdict:
    """Holds an evaluation against the gate, and the champion of its series; one is not compared with itself."""
    in_use = next((each for each in registry.versions() if CHAMPION in each.aliases), None)
    champion = series_champion(registry, record.facts["data"])
    if any(each is not None and each.digest == digest for each in (champion, in_use)):
        return judge(record, None, None, gate)
    if champion is None:
        return judge(record, None, None, gate, elsewhere=in_use.number if in_use else None)
    return judge(record, champion.number, registry.evaluation(champion), gate)


def _point_candidate(registry: Registry, number: int, verdict: Verdict) -> None:
    registry.tag(number, _verdict_tags(verdict))
    aliases = registry.aliases()
    if verdict.passed and aliases.get(CHAMPION) != number:
        registry.set_alias(CANDIDATE, number)
    elif aliases.get(CANDIDATE) == number:
        registry.drop_alias(CANDIDATE)


@contextmanager
def _run(client: Any, record: EvaluationRecord, origin: Origin, key_file: Path) -> Iterator[tuple[str, str]]:
    """Opens the run of the registration, puts the evaluation there, and gives its id and artifact URI."""
    run_id = open_run(client, origin, key_file)
    try:
        for name in record.measure.files:
            client.log_artifact(run_id, str(origin.inputs["report"] / name), EVALUATION)
        yield run_id, client.get_run(run_id).info.artifact_uri
    except BaseException as error:
        client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _create_once(registry: Registry, source: str, run_id: str, tags: Mapping[str, str], one: Artifact) -> int:
    """Creates a version; where somebody did so at the same time with the same weights, the first one stays alone.

    Both look again after they created theirs. Numbers are given out in the order in which versions appear, so
    whoever has the higher number sees the other's and drops their own; whoever is killed in between leaves a
    version that nothing points to, as the first of equal digests is the one that counts.
    """
    number = registry.create(source, run_id, tags, _fit(one.card), PURPOSE[one.kind])
    first = _with_digest(registry, tags["maskcast.digest"])
    assert first is not None
    if first.number == number:
        say(f"registry: {registry.name} version {number} is new")
    else:
        registry.delete(number)
        say(f"registry: {registry.name} got these weights from somebody else just now: version {first.number}")
    return first.number


def _fit(card: str) -> str:
    """Returns a card cut to what MLflow's databases hold of a description."""
    if len(card) <= MAX_DESCRIPTION:
        return card
    return card[: MAX_DESCRIPTION - len(CUT)].rpartition("\n")[0] + CUT


def _with_digest(registry: Registry, digest: str) -> Version | None:
    """Returns the first version of a bundle whose files are there."""
    found = [version for version in reversed(registry.versions()) if version.digest == digest]
    return next(filter(registry.has_files, found), None)


def _evaluation_tags(record: EvaluationRecord) -> dict[str, str]:
    """Returns the tags of an evaluation, its digest last."""
    facts = {f"maskcast.{name}": str(record.facts[name]) for name in record.measure.about}
    return facts | {"maskcast.evaluation": record.digest}


def _score_tags(record: EvaluationRecord) -> dict[str, str]:
    found = {name: record.scores[name] for name in record.measure.headline if name in record.scores}
    return {f"maskcast.score.{name}": f"{value:.6f}" for name, value in found.items()}


def _part_tags(versions: Mapping[str, int]) -> dict[str, str]:
    return {f"maskcast.part.{name}": str(number) for name, number in versions.items()}


def _verdict_tags(verdict: Verdict) -> dict[str, str]:
    return {
        "maskcast.verdict": "passed" if verdict.passed else "failed",
        "maskcast.gate": json.dumps(verdict.as_json()),
    }
