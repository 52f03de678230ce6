"""Tables of the versions of a registered model: all of them, and two compared."""

from datetime import UTC, datetime
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.evaluation.paired import paired_difference
from maskcast.registry.audit_trail import decisions, is_recorded
from maskcast.registry.evaluations import MEASURES, why_incomparable
from maskcast.registry.store import CHAMPION, Registry
from maskcast.report.tables import format_table


def list_versions(name: str) -> str:
    """Returns all versions of a registered model with their scores, and the last decisions.

    Raises:
        MaskcastError: there are no versions.
    """
    registry = Registry(name)
    versions = registry.versions()
    if not versions:
        raise registry.no_models_error()
    tagged = {tag for each in versions for tag in each.tags}
    scores = [score for measure in MEASURES for score in measure.listed if f"maskcast.score.{score}" in tagged]
    rows = [
        [
            str(each.number),
            ", ".join(each.aliases),
            each.tags.get("maskcast.verdict", "-"),
            *(each.tags.get(f"maskcast.score.{score}", "-") for score in scores),
            each.tags.get("maskcast.data", "-")[:12],
            each.tags.get("maskcast.git_sha", "-")[:12],
            _time(each.created_ms),
        ]
        for each in versions
    ]
    header = ["version", "alias", "gate", *scores, "data", "commit", "registered (UTC)"]
    tables = [format_table(header, rows, name)]
    trail = decisions(name)
    if last_decisions := trail[:10]:
        rows = [
            [
                str(each.number),
                each.action,
                str(each.version),
                str(each.champion or "-"),
                each.user,
                each.outcome,
                each.reason,
                _time(each.created_ms),
            ]
            for each in last_decisions
        ]
        header = ["decision", "action", "version", "before", "by", "outcome", "reason", "when (UTC)"]
        tables.append(format_table(header, rows, "last decisions"))
    champion = next((each for each in versions if CHAMPION in each.aliases), None)
    if not is_recorded(champion, trail):
        found = "no version" if champion is None else f"version {champion.number}"
        remedy = "" if champion is None else f"; record it with `promote {champion.number}`"
        tables.append(
            f"check: the alias {CHAMPION} is on {found}, which no decision above explains: it was moved without "
            f"`maskcast models`{remedy}"
        )
    return "\n\n".join(tables)


def compare_versions(registry: Registry, a: str, b: str, pictures: Path | None, clips: Path) -> str:
    """Returns the scores of two versions, and their paired differences.

    Args:
        registry: the registered model.
        a: number or alias.
        b: of the other version.
        pictures: folder for pictures of the clips that differ most (see ``draw_differences``), whose paths follow
            then; or None.
        clips: the clip store to draw from.

    Raises:
        MaskcastError: the evaluations are not comparable, or pictures cannot be drawn.
    """
    versions = [registry.find(which) for which in (a, b)]
    first, second = (registry.evaluation(version) for version in versions)
    if (reason := why_incomparable(second, first)) is not None:
        numbers = f"{versions[0].number} and {versions[1].number}"
        raise MaskcastError(
            f"{registry.name}: versions {numbers} are not comparable: {reason}; "
            f"evaluate and register both on the same {first.measure.of}s"
        )
    of = first.measure.of
    rows = []
    for score in sorted(first.per_item):
        scores_a, scores_b = first.per_item[score], second.per_item[score]
        means = [sum(each.values()) / len(each) for each in (scores_a, scores_b)]
        difference = paired_difference(scores_b, scores_a, Bootstrap(), of, second.videos)
        rows.append([score, *(f"{mean:.4f}" for mean in means), str(difference)])
    names = [f"version {version.number}" for version in versions]
    title = f"{registry.name}: means over {of}s, and B minus A with its 95 % interval (paired bootstrap)"
    text = format_table([f"score of each {of}", *names, "difference"], rows, title)
    if pictures is None:
        return text
    from maskcast.registry.comparison import SCORE, draw_differences
    from maskcast.registry.loading import load_version, pipeline_of

    loaded = [pipeline_of(load_version(registry, str(version.number))) for version in versions]
    files = draw_differences((loaded[0], first), (loaded[1], second), clips, pictures)
    return "\n".join([text, *(map(str, files) if files else [f"no pictures: no clip differs in {SCORE}"])])


def _time(created_ms: int) -> str:
    return datetime.fromtimestamp(created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
