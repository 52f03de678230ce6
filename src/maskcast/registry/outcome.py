"""What a registration leaves: the verdict as JSON, on a page beside the champion, and as a line of the log."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from maskcast.progress import say
from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.page import write_page
from maskcast.registry.store import Registry
from maskcast.registry.verdict import Verdict
from maskcast.runner.provenance import Origin
from maskcast.writing import write_json


def write_outcome(
    name: str,
    record: EvaluationRecord,
    verdict: Verdict,
    versions: Mapping[str, int],
    origin: Origin,
    registration: Path,
    page: Path | None,
) -> None:
    """Writes what came of a registration.

    Args:
        name: the registered model that stood at the gate.
        record: its evaluation.
        verdict: what the gate said.
        versions: of each registered model by its name.
        origin: where they come from.
        registration: JSON file: the model that stood at the gate, the versions, and the verdict with its numbers.
        page: HTML file, where one is wanted; MLflow has it either way, in the run that registered the version.
    """
    registry, number = Registry(name), verdict.champion
    champion = None if number is None else registry.evaluation(registry.find(str(number)))
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
        file = Path(scratch, f"{origin.known['maskcast.name']}.html")
        model = registry.find(str(versions[name]))
        write_page(file, model, record, champion, verdict, origin.params, dict(origin.known))
        run_id = model.tags["maskcast.evaluation_run"]  # where nothing is new, an older one
        registry.client.log_artifact(run_id, str(file))
        if page is not None:
            shutil.copy(file, page)
    outcome = {"model": name, "versions": versions, **verdict.as_json()}
    write_json(registration, outcome)
    say(f"gate: {name} version {versions[name]} {verdict.line}")
