"""API keys: who calls, for which organization, and what they may do.

A key reads `fbx_<id>_<secret>`: 80 bits that find it and 256 random bits that prove it, both in
lower-case base 32. Only a digest of the secret is stored. A fast hash is right here: slow,
salted ones (argon2, bcrypt) protect what people choose and others can guess; nobody guesses 256
random bits, and a slow hash on every request would be a lever to exhaust the server.
"""

import hmac
import re
from base64 import b32encode
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from uuid import UUID

from msgspec import Struct

ID_BYTES = 10
SECRET_BYTES = 32
_FORM = re.compile(r"fbx_([a-z2-7]{16})_([a-z2-7]{52})")


class Scope(StrEnum):
    """What a key may do. `manage` includes the others; they include only themselves."""

    INGEST = "ingest"
    DRAW = "draw"
    READ = "read"
    MANAGE = "manage"


class KeyRefusal(StrEnum):
    """Why a key does not open a door, in order of precedence."""

    KEY_MISSING = "key_missing"
    KEY_MALFORMED = "key_malformed"
    KEY_UNKNOWN = "key_unknown"
    KEY_REVOKED = "key_revoked"
    SCOPE_MISSING = "scope_missing"


_IMPLIED = {
    Scope.INGEST: frozenset({Scope.INGEST}),
    Scope.DRAW: frozenset({Scope.DRAW}),
    Scope.READ: frozenset({Scope.READ}),
    Scope.MANAGE: frozenset(Scope),
}
_GRANTED_BY = {
    scope: frozenset(granted for granted, implied in _IMPLIED.items() if scope in implied)
    for scope in Scope
}


class Key(Struct, frozen=True, kw_only=True):
    """A key as it is stored. With a customer it reaches that customer's data and no other."""

    id: str
    organization: UUID
    digest: bytes
    scopes: frozenset[Scope]
    customer: str | None = None
    revoked_at: datetime | None = None


class PresentedKey(Struct, frozen=True):
    """A well-formed key as a caller sent it; `id` finds the stored one."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"PresentedKey({self.id!r}, ...)"


def make_key(random: bytes) -> tuple[str, PresentedKey]:
    """Return a new key's text, to be shown once, and its parts; takes 42 random bytes."""
    assert len(random) == ID_BYTES + SECRET_BYTES, len(random)
    presented = PresentedKey(_base32(random[:ID_BYTES]), _base32(random[ID_BYTES:]))
    return f"fbx_{presented.id}_{presented.secret}", presented


def digest_of(presented: PresentedKey) -> bytes:
    """Return what is stored in place of the secret: 32 bytes, bound to this key's id."""
    return blake2b(
        f"{presented.id}_{presented.secret}".encode(), digest_size=32, person=b"farebox key"
    ).digest()


def parse_key(text: str | None) -> PresentedKey | KeyRefusal:
    """Return the parts of a presented key, or why it can be none."""
    if not text:
        return KeyRefusal.KEY_MISSING
    form = _FORM.fullmatch(text)
    return PresentedKey(form[1], form[2]) if form else KeyRefusal.KEY_MALFORMED


def check_key(presented: PresentedKey, key: Key | None, scope: Scope) -> KeyRefusal | None:
    """Return why `presented` may not act in `scope`, or none: it may.

    key: the stored key with the presented id. A wrong secret is as unknown as a wrong id, and the
    comparison takes the same time wherever they differ.
    """
    if key is None or not hmac.compare_digest(key.digest, digest_of(presented)):
        return KeyRefusal.KEY_UNKNOWN
    if key.revoked_at is not None:
        return KeyRefusal.KEY_REVOKED
    if not allows(key.scopes, scope):
        return KeyRefusal.SCOPE_MISSING
    return None


def allows(scopes: frozenset[Scope], scope: Scope) -> bool:
    """Whether these scopes, with all that they imply, include `scope`."""
    return not _GRANTED_BY[scope].isdisjoint(scopes)


def _base32(value: bytes) -> str:
    return b32encode(value).decode().rstrip("=").lower()
