"""A console session: a cookie that proves a key was shown, and holds nothing of the key.

The cookie names the organization and the API key and says until when it holds, under a MAC whose
secret is the digest that the database keeps of the key. So every process can check it, nothing is
stored for it, and it ends with its key: a revoked one opens nothing from the next request on.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from uuid import UUID

from msgspec import Struct

from farebox.access.key import Scope, allows
from farebox.postgres.console import SessionKey

SESSION_LENGTH = timedelta(hours=12)
_MAC_BYTES = 32
_BODY_BYTES = 16 + 16 + 8
_PERSON = b"farebox session"


class SessionRefusal(StrEnum):
    """Why a cookie opens no page, in order of precedence."""

    SESSION_MALFORMED = "session_malformed"
    SESSION_UNKNOWN = "session_unknown"
    SESSION_ENDED = "session_ended"
    KEY_REVOKED = "key_revoked"
    KEY_OF_CUSTOMER = "key_of_customer"
    SCOPE_MISSING = "scope_missing"


class Claim(Struct, frozen=True):
    """What a cookie says, true only once `check_session` found no refusal."""

    organization_id: UUID
    api_key_id: UUID
    ends_at: datetime
    mac: bytes

    @property
    def body(self) -> bytes:
        return _body(self.organization_id, self.api_key_id, self.ends_at)


def seal_session(
    organization_id: UUID, api_key_id: UUID, ends_at: datetime, secret_hash: bytes
) -> str:
    """Return the cookie's text; `ends_at` counts in whole seconds."""
    body = _body(organization_id, api_key_id, ends_at)
    return urlsafe_b64encode(body + _mac(body, secret_hash)).decode().rstrip("=")


def read_claim(text: str) -> Claim | SessionRefusal:
    """Return what the cookie's text says, whether or not it is true."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return SessionRefusal.SESSION_MALFORMED
    if len(raw) != _BODY_BYTES + _MAC_BYTES:
        return SessionRefusal.SESSION_MALFORMED
    seconds = int.from_bytes(raw[32:40])
    if seconds >= 1 << 33:
        return SessionRefusal.SESSION_MALFORMED
    return Claim(
        UUID(bytes=raw[:16]),
        UUID(bytes=raw[16:32]),
        datetime.fromtimestamp(seconds, UTC),
        raw[_BODY_BYTES:],
    )


def check_session(claim: Claim, key: SessionKey | None, now: datetime) -> SessionRefusal | None:
    """Return why the claim opens no page at `now`; `key` is the key it names, as it is stored."""
    if key is None or not hmac.compare_digest(_mac(claim.body, key.secret_hash), claim.mac):
        return SessionRefusal.SESSION_UNKNOWN
    if claim.ends_at <= now:
        return SessionRefusal.SESSION_ENDED
    return check_console_key(key.scopes, key.customer_key, key.revoked_at)


def check_console_key(
    scopes: list[str], customer_key: str | None, revoked_at: datetime | None
) -> SessionRefusal | None:
    """Return why a key does not open the console, or none: it does."""
    if revoked_at is not None:
        return SessionRefusal.KEY_REVOKED
    if customer_key is not None:
        return SessionRefusal.KEY_OF_CUSTOMER
    if not allows(frozenset(Scope(scope) for scope in scopes), Scope.READ):
        return SessionRefusal.SCOPE_MISSING
    return None


def _body(organization_id: UUID, api_key_id: UUID, ends_at: datetime) -> bytes:
    return organization_id.bytes + api_key_id.bytes + int(ends_at.timestamp()).to_bytes(8)


def _mac(body: bytes, secret_hash: bytes) -> bytes:
    return blake2b(body, digest_size=_MAC_BYTES, key=secret_hash[:64], person=_PERSON).digest()
