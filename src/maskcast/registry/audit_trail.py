"""The audit trail of promotions (see ``promotion``), and the champion of each series of versions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from maskcast.errors import MaskcastError
from maskcast.registry.store import CHAMPION, Registry, Version

TRAIL = "maskcast.promotions"  # tag of a registered model: its audit trail, which so follows a renamed model
# The tags of a decision, with their allowed values.
TAG_PATTERNS = {
    "action": "promote|rollback",
    "version": "[1-9][0-9]*",
    "champion": "[0-9]+",
    "user": ".*",
    "reason": ".*",
    "outcome": "open|done|overtaken|abandoned",
    "digest": "[0-9a-f]*",  # older decisions have none
}


@dataclass(frozen=True)
class Decision:
    """One entry of the audit trail.

    Args:
        number: consecutive, from 1.
        created_ms: time by the server's clock.
        action: promote or rollback.
        version: the version that became champion.
        champion: the champion before, 0 if there was none.
        user: who decided.
        reason: given by the user; required only if the gate is overruled.
        outcome: open while aliases are moved, then done; overtaken by another decision, or abandoned if it ended
            before the champion's alias was moved.
        digest: of the version's bundle; empty in decisions of an older maskcast.
    """

    number: int
    created_ms: int
    action: str
    version: int
    champion: int
    user: str
    reason: str
    outcome: str
    digest: str

    def made_champion(self, version: Version) -> bool:
        """Whether it is about this version, not an earlier one: a deleted model's numbers are given again."""
        is_same = self.digest == version.digest if self.digest else self.created_ms >= version.created_ms
        return is_same and self.version == version.number

    def concerns(self, version: Version) -> bool:
        """Whether this version became champion, or was it before."""
        was_champion = self.champion == version.number and self.created_ms >= version.created_ms
        return self.made_champion(version) or was_champion


def decisions(name: str) -> list[Decision]:
    """Returns the audit trail of a registered model, newest first.

    Raises:
        MaskcastError: an entry was changed or not written by maskcast; the message names it.
    """
    return decisions_of(trail_of(Registry(name)))


def trail_of(registry: Registry) -> Registry:
    """Returns the registered model whose versions are the decisions about another."""
    return Registry(registry.model_tags().get(TRAIL, f"{registry.name}-promotions"))


def decisions_of(trail: Registry) -> list[Decision]:
    """Returns the decisions of an audit trail; see ``decisions``."""
    return [_decision(version) for version in trail.versions()]


def is_recorded(champion: Version | None, trail: Sequence[Decision]) -> bool:
    """Whether the audit trail explains which version is champion.

    Args:
        champion: the version with the alias, if any.
        trail: the decisions, newest first. Newer ones than the last completed one may have moved the alias, too.
    """
    last = next((n for n, each in enumerate(trail) if each.outcome == "done"), None)
    if champion is None:
        return last is None
    possible = trail if last is None else trail[: last + 1]
    return any(each.made_champion(champion) for each in possible if each.outcome != "overtaken")


def champion_for(registry: Registry, data: str) -> Version | None:
    """Returns the champion that a version must be compared with; None if there is no champion.

    It is the champion of the version's series, i.e. of the versions that were scored on the same clips or images:
    the one that was last promoted, even if a version of another data set is champion now. If no version of the
    series was ever promoted, it is the champion now, although its scores cannot be compared.

    Args:
        registry: the registered model.
        data: digest of the scored data.
    """
    versions = registry.versions()
    series = [each for each in versions if each.tags.get("maskcast.data") == data]
    in_use = [each for each in versions if CHAMPION in each.aliases]
    done = [decision for decision in decisions(registry.name) if decision.outcome == "done"]
    promoted = [each for each in in_use if each in series]
    promoted += [each for decision in done for each in series if decision.made_champion(each)]
    return next(iter(promoted + in_use), None)


def _decision(version: Version) -> Decision:
    tags = {name: version.tags.get(f"maskcast.{name}", "") for name in TAG_PATTERNS}
    for name, allowed in TAG_PATTERNS.items():
        if not re.fullmatch(allowed, tags[name], re.DOTALL):
            raise MaskcastError(
                f"{version.name} version {version.number}: not a decision of `maskcast models`, or its tag "
                f"maskcast.{name} was changed; fix the tag or delete this version in MLflow's UI"
            )
    return Decision(
        version.number,
        version.created_ms,
        tags["action"],
        int(tags["version"]),
        int(tags["champion"]),
        tags["user"],
        tags["reason"],
        tags["outcome"],
        tags["digest"],
    )
