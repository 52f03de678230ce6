"""The audit trail of promotions (see ``promotion``), and what it tells of each series of versions."""

from dataclasses import dataclass

from maskcast.registry.store import CHAMPION, Registry, Version


@dataclass(frozen=True)
class Decision:
    """One entry of the audit trail.

    Args:
        number: counted from 1.
        created_ms: when, by the server's clock.
        action: promote or rollback.
        version: the version that became champion.
        champion: the champion before, 0 where there was none.
        user: who.
        reason: why, in the words of who decided; may be empty where the gate was not overruled.
        outcome: open while the aliases move, then done; overtaken or abandoned if they did not, or not by this.
    """

    number: int
    created_ms: int
    action: str
    version: int
    champion: int
    user: str
    reason: str
    outcome: str


def decisions(name: str) -> list[Decision]:
    """Returns the audit trail of a registered model, newest first."""
    return [_decision(version) for version in Registry(trail_of(name)).versions()]


def trail_of(name: str) -> str:
    """Returns the registered model whose versions are the decisions about another one."""
    return f"{name}-promotions"


def series_champion(registry: Registry, data: str) -> Version | None:
    """Returns the champion of a series, the versions that were scored on the same clips or images.

    It is the version of the series that people made champion last, in use or not: another data set may have had
    its turn since. None where none of the series ever was.

    Args:
        registry: the registered model.
        data: digest of what is scored.
    """
    series = {each.number: each for each in registry.versions() if each.tags.get("maskcast.data") == data}
    in_use = [each for each in series.values() if CHAMPION in each.aliases]
    done = [each.version for each in decisions(registry.name) if each.outcome == "done"]
    return next(iter(in_use + [series[number] for number in done if number in series]), None)


def _decision(version: Version) -> Decision:
    tags = version.tags
    return Decision(
        version.number,
        version.created_ms,
        tags["maskcast.action"],
        int(tags["maskcast.version"]),
        int(tags["maskcast.champion"]),
        tags["maskcast.user"],
        tags["maskcast.reason"],
        tags["maskcast.outcome"],
    )
