"""Passwords: argon2id, a bounded number at a time, and the same work and the same answer whether the account exists or not."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

from hub.policy import Refusal

PASSWORD_MIN = 12
PASSWORD_MAX = 256
# Argon2id, the 46 MiB row of OWASP's password storage sheet: about 60 ms a check on a small machine.
MEMORY_KIB, PASSES, LANES = 47_104, 1, 1
AT_ONCE = 2  # more would make the login page a way to exhaust the machine
WAITING = 32
NO_MATCH = "That e-mail address and password do not belong together."


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login the throttle let through; `agent_id` is empty where no such account exists, and nobody may learn that."""

    agent_id: int | None
    password_hash: str
    keys: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Verified:
    """Proof that somebody just gave the right password (or followed their link) for this account."""

    agent_id: int
    password_hash: str
    keys: tuple[str, ...] = ()
    rehash: str | None = None


class WrongPassword(Exception):
    """The password does not fit, the account does not exist, or it has no password: the three are never told apart."""


class PasswordsBusy(Exception):
    """Too many passwords are being checked at this moment. Nothing was decided; try again in a few seconds."""


def check_password(password: str, email: str = "") -> str:
    """The password itself, when it may be used. Raises Refusal saying what to change."""
    if len(password) < PASSWORD_MIN:
        raise Refusal(f"A password needs at least {PASSWORD_MIN} characters. A few words in a row are fine.")
    if len(password) > PASSWORD_MAX:
        raise Refusal(f"A password may have at most {PASSWORD_MAX} characters.")
    folded = password.casefold()
    if len(set(folded)) < 5:
        raise Refusal("This password repeats a few characters. Choose one that is harder to guess.")
    if email and (
        folded in email.casefold() or email.casefold() in folded or folded.startswith(email.partition("@")[0].casefold() + "123")
    ):
        raise Refusal("This password can be guessed from the e-mail address. Choose another.")
    return password


class Passwords:
    """Argon2id in threads, two at a time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The encoded hash to store. Raises PasswordsBusy."""
        return str(await self._run(_hash, password))

    async def verify(self, attempt: Attempt, password: str) -> Verified:
        """Proof that the password fits. Does the same work for an account that does not exist. Raises WrongPassword, PasswordsBusy."""
        rehash = await self._run(_verify, attempt.password_hash, password)
        if attempt.agent_id is None or not attempt.password_hash:
            raise WrongPassword(NO_MATCH)
        return Verified(attempt.agent_id, attempt.password_hash, attempt.keys, rehash)

    async def _run(self, work: Any, *arguments: str) -> Any:
        if self._waiting >= WAITING:
            raise PasswordsBusy("Too many people are signing in at this moment. Try again in a few seconds.")
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1


def _hasher() -> Any:
    from argon2 import PasswordHasher, Type

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, type=Type.ID)


def _hash(password: str) -> str:
    return str(_hasher().hash(password.encode("utf-8", "surrogatepass")))


# Well-formed, and the hash of nothing: what an unknown account's password is checked against, at the same cost.
_SALT, _SUM = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (16, 32))
NOBODY = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${_SALT}${_SUM}"


def _verify(password_hash: str, password: str) -> str | None:
    """A fresh hash where the stored one has older parameters, else None. Raises WrongPassword."""
    from argon2.exceptions import InvalidHashError, VerificationError

    hasher = _hasher()
    try:
        hasher.verify(password_hash or NOBODY, password.encode("utf-8", "surrogatepass"))
    except (VerificationError, InvalidHashError) as error:
        raise WrongPassword(NO_MATCH) from error
    return _hash(password) if password_hash and hasher.check_needs_rehash(password_hash) else None
