"""Promotion: moves the aliases ``champion`` and ``previous``, one user at a time, with an audit trail.

MLflow has no compare-and-swap for aliases, but it numbers the versions of a registered model atomically. So each
decision is a version of a second registered model, ``<name>-promotions``. A user reads its last version number,
then the aliases, and then creates a version. If it gets the next number, the user may move the aliases. Otherwise
another user was faster, and the attempt fails. These versions are the audit trail, including failed attempts;
their source is the promoted version.
"""

import getpass
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.registry.audit_trail import TRAIL, Decision, champion_for, decisions_of, is_recorded, trail_of
from maskcast.registry.store import CANDIDATE, CHAMPION, PREVIOUS, Registry, Version
from maskcast.runner.mlflow_client import account
from maskcast.runner.mlflow_errors import error_text

ABANDONED_S = 60  # an open decision of this age counts as killed; clocks must not differ by more
MAX_REASON = 500  # characters
TRAIL_DESCRIPTION = (
    "The audit trail of {}: each version is a promotion or a rollback, and its tags say who, why and how it ended."
)

Action = Literal["promote", "rollback"]


def promote(name: str, which: str, reason: str, force: bool) -> Decision:
    """Makes a version the champion, and the champion the previous one.

    If the alias was moved to the version by other means, the decision is recorded. If a killed promotion of the
    version is completed by this call, that decision is returned.

    Args:
        name: the registered model.
        which: number or alias.
        reason: why; it is recorded.
        force: overrules the gate, which requires a reason.

    Raises:
        MaskcastError: the version does not exist, it is already champion, it did not pass the gate or was compared
            with another champion, the gate is overruled without a reason, the reason is too long, or another user
            decides at the same time.
    """
    if force and not reason.strip():
        raise MaskcastError("promote: --force overrules the gate and needs a reason; give --reason TEXT")
    reason = _checked(reason)
    version = Registry(name).find(which)  # the alias `candidate` may be removed by completing a killed decision
    transaction = Transaction(name)
    if (completed := transaction.completed) is not None and completed.made_champion(version):
        _say_unrecorded(name, completed, reason)
        return completed
    is_champion = version.number == transaction.champion
    if is_champion and is_recorded(version, transaction.decisions()):
        raise MaskcastError(f"{name}: version {version.number} is already the champion")
    if not force:
        _check_gate(transaction.registry, version, is_champion)
    return transaction.decide("promote", version, reason)


def rollback(name: str, reason: str = "") -> Decision:
    """Makes the previous version the champion again, and the champion the previous one.

    If a killed rollback is completed by this call, that decision is returned.

    Args:
        name: the registered model.
        reason: why; it is recorded.

    Raises:
        MaskcastError: the champion is the result of a rollback, which a second one would undo; there is no
            previous version, it equals the champion after a killed decision, the reason is too long, or another
            user decides at the same time.
    """
    reason = _checked(reason)
    transaction = Transaction(name)
    if not transaction.registry.versions():
        raise transaction.registry.no_models_error()
    if (completed := transaction.completed) is not None and completed.action == "rollback":
        _say_unrecorded(name, completed, reason)
        return completed
    last = next((each for each in transaction.decisions() if each.outcome == "done"), None)
    if last is not None and last.action == "rollback" and last.version == transaction.champion:
        raise MaskcastError(
            f"{name}: {last.user} has rolled back to version {last.version} already (decision {last.number}); to "
            "use another version, run `maskcast models promote NUMBER`"
        )
    if PREVIOUS not in transaction.registry.aliases():
        raise MaskcastError(f"{name}: no version has the alias {PREVIOUS!r}; promote twice before a rollback")
    version = transaction.registry.find(PREVIOUS)
    if version.number == transaction.champion:
        raise MaskcastError(
            f"{name}: version {version.number} is the champion and {PREVIOUS!r}, because a decision was killed; "
            "find the earlier champion with `maskcast models list`, and run `maskcast models promote NUMBER`"
        )
    return transaction.decide("rollback", version, reason)


class Transaction:
    """The state on which a decision is based: the last decision, and the champion after it.

    A last decision that was killed is completed if the champion's alias was moved, else marked as abandoned.

    Raises:
        MaskcastError: another user's decision is under way.
    """

    def __init__(self, name: str) -> None:
        self.registry = Registry(name)
        self._trail = trail_of(self.registry)
        self.completed: Decision | None = None  # by this transaction
        last = next(iter(self.decisions()), None)
        if last is not None and last.outcome == "open":
            if abs(time.time() - last.created_ms / 1000) < ABANDONED_S:  # a clock may have been ahead
                raise MaskcastError(
                    f"{name}: conflict with a decision of {last.user} that is not complete ({last.action} version "
                    f"{last.version}); check `maskcast models list` in a minute and try again"
                )
            settled = self._settle(last.number)
            self.completed = settled if settled.outcome == "done" else None
        self._last = last.number if last else 0
        self.champion = self.registry.aliases().get(CHAMPION, 0)  # read after the last decision: not older

    def decisions(self) -> list[Decision]:
        """Returns the decisions until now, newest first."""
        return decisions_of(self._trail)

    def decide(self, action: Action, version: Version, reason: str) -> Decision:
        """Moves the aliases, unless another user has decided since the state was read.

        Raises:
            MaskcastError: another user has, which the message describes; or the version's files do not exist.
        """
        name = self.registry.name
        self.registry.files(version)  # fails if one is missing: such a champion would be unusable
        before = self._before(version)
        entry = {
            "maskcast.action": action,
            "maskcast.version": str(version.number),
            "maskcast.digest": version.digest,
            "maskcast.champion": str(before),
            "maskcast.user": account() or _user(),
            "maskcast.reason": reason,
            "maskcast.outcome": "open",
        }
        self.registry.tag_model(TRAIL, self._trail.name)  # fails without the right to move aliases
        number = self._trail.create(
            f"models:/{name}/{version.number}", None, entry, purpose=TRAIL_DESCRIPTION.format(name)
        )
        if number != self._last + 1:
            self._trail.tag(number, {"maskcast.outcome": "overtaken"})
            first = next((each for each in self.decisions() if each.number == self._last + 1), None)
            if first is None:
                cause = f"decision {self._last + 1} was deleted from {self._trail.name}"
            else:
                cause = f"{first.user} was first (decision {first.number}: {first.action} version {first.version})"
            raise MaskcastError(
                f"{name}: conflict: {cause}; your decision has no effect: check `maskcast models list` and try "
                "again"
            )
        try:
            if before:
                self.registry.set_alias(PREVIOUS, before)
            elif PREVIOUS in version.aliases:  # the champion's alias was removed by other means
                self.registry.drop_alias(PREVIOUS)
            self.registry.set_alias(CHAMPION, version.number)
        except BaseException:
            with suppress(Exception):  # the first error says more
                self._settle(number)
            raise
        settled = self._settle(number)
        if settled.outcome != "done":
            raise MaskcastError(
                f"{name}: alias {CHAMPION} is not on version {version.number}: it was moved without maskcast; "
                "check `maskcast models list` and try again"
            )
        return settled

    def _before(self, version: Version) -> int:
        """Returns the number of the champion before; 0 if there is none.

        If the alias is on the version already, it was moved by other means: then it is the last one promoted.
        """
        if self.champion != version.number:
            return self.champion
        others = [each for each in self.registry.versions() if each.number != version.number]
        last = next((each for each in self.decisions() if each.outcome == "done"), None)
        return next((each.number for each in others if last is not None and last.made_champion(each)), 0)

    def _settle(self, number: int) -> Decision:
        """Records how a decision has ended, which the champion's alias shows; returns the ended decision."""
        decision = next(each for each in self.decisions() if each.number == number)
        champion = next((each for each in self.registry.versions() if CHAMPION in each.aliases), None)
        outcome = "done" if champion is not None and decision.made_champion(champion) else "abandoned"
        if champion is not None and outcome == "done" and CANDIDATE in champion.aliases:
            try:
                self.registry.drop_alias(CANDIDATE)
            except Exception as error:  # on a server with accounts it needs more rights than the promotion
                say(
                    f"warning: {self.registry.name}: version {champion.number} keeps the alias {CANDIDATE} "
                    f"({error_text(error)}); ask an account with MANAGE to remove it"
                )
        self._trail.tag(number, {"maskcast.outcome": outcome})
        return replace(decision, outcome=outcome)


def _say_unrecorded(name: str, completed: Decision, reason: str) -> None:
    if reason and reason != completed.reason:
        say(f"{name}: completed decision {completed.number} of {completed.user}; your reason was not recorded")


def _checked(reason: str) -> str:
    """Returns a reason in one line, without spaces around it.

    Raises:
        MaskcastError: it is too long for a table.
    """
    reason = " ".join(reason.split())
    if len(reason) > MAX_REASON:
        raise MaskcastError(f"--reason: has {len(reason)} characters; give at most {MAX_REASON}")
    return reason


def _user() -> str:
    """Returns the user of this process; in a container it may be a number without a name."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return f"user {os.getuid()}"


def _check_gate(registry: Registry, version: Version, is_champion: bool) -> None:
    name = version.tags.get("maskcast.name", version.tags.get("maskcast.stage", "register_models"))
    remedy = f"run {name} again, or overrule it with --force --reason TEXT"
    verdict = version.tags.get("maskcast.verdict")
    if verdict != "passed":
        fault = "did not pass the gate" if verdict else "was not checked by a gate"
        raise MaskcastError(f"{version.name}: version {version.number} {fault}; {remedy}")
    if is_champion:  # by other means; there is no other to compare with
        return
    champion = champion_for(registry, version.tags.get("maskcast.data", ""))
    now = None if champion is None or champion.digest == version.digest else champion.number
    if version.gate.get("champion") != now:
        against = version.gate.get("champion") or "no champion"
        raise MaskcastError(
            f"{version.name}: the gate compared version {version.number} with {against}, but the champion is now "
            f"{now or 'none'}; {remedy}"
        )
