"""API keys: every refusal in its order, and what a scope includes."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from farebox.access.key import (
    Key,
    KeyRefusal,
    PresentedKey,
    Scope,
    allows,
    check_key,
    digest_of,
    make_key,
    parse_key,
)

RANDOM = bytes(range(42))
TEXT, PRESENTED = make_key(RANDOM)
KEY = Key(
    id=PRESENTED.id,
    organization=UUID(int=1),
    digest=digest_of(PRESENTED),
    scopes=frozenset({Scope.READ}),
)
REVOKED = replace(KEY, revoked_at=datetime(2026, 1, 1, tzinfo=UTC))
OTHER = make_key(bytes(reversed(range(42))))[1]


def answer(text: str | None, key: Key | None, scope: Scope) -> KeyRefusal | None:
    presented = parse_key(text)
    if isinstance(presented, KeyRefusal):
        return presented
    return check_key(presented, key, scope)


ROWS = [
    (KeyRefusal.KEY_MISSING, "", None, Scope.INGEST),
    (KeyRefusal.KEY_MALFORMED, TEXT.upper(), None, Scope.INGEST),
    (KeyRefusal.KEY_UNKNOWN, TEXT, replace(REVOKED, digest=digest_of(OTHER)), Scope.INGEST),
    (KeyRefusal.KEY_REVOKED, TEXT, REVOKED, Scope.INGEST),
    (KeyRefusal.SCOPE_MISSING, TEXT, KEY, Scope.INGEST),
]


@pytest.mark.parametrize(("refusal", "text", "key", "scope"), ROWS)
def test_each_refusal_goes_before_the_next(
    refusal: KeyRefusal, text: str, key: Key | None, scope: Scope
) -> None:
    assert refusal is answer(text, key, scope)


def test_every_refusal_has_its_row_in_order() -> None:
    assert list(KeyRefusal) == [row[0] for row in ROWS]


def test_a_key_with_its_scope_is_let_in() -> None:
    assert answer(TEXT, KEY, Scope.READ) is None


def test_a_key_is_the_text_of_its_random_bytes() -> None:
    assert TEXT == "fbx_aaaqeayeaudaocaj_bifqydiob4ibceqtcqkrmfyydenbwha5dypsaijcemsckjrhfauq"
    assert PRESENTED == parse_key(TEXT)
    assert TEXT.split("_")[2] not in repr(PRESENTED)


def test_one_bit_of_the_secret_decides() -> None:
    for byte in range(10, 42):
        changed = bytearray(RANDOM)
        changed[byte] ^= 1
        presented = make_key(bytes(changed))[1]
        assert presented.id == KEY.id
        assert check_key(presented, KEY, Scope.READ) is KeyRefusal.KEY_UNKNOWN


def test_a_digest_belongs_to_its_key_id() -> None:
    assert digest_of(PRESENTED) != digest_of(PresentedKey(OTHER.id, PRESENTED.secret))


@pytest.mark.parametrize(
    ("granted", "included"),
    [
        (Scope.INGEST, {Scope.INGEST}),
        (Scope.DRAW, {Scope.DRAW}),
        (Scope.READ, {Scope.READ}),
        (Scope.MANAGE, set(Scope)),
    ],
)
def test_manage_includes_the_others_and_they_only_themselves(
    granted: Scope, included: set[Scope]
) -> None:
    assert included == {scope for scope in Scope if allows(frozenset({granted}), scope)}


def test_no_scope_allows_nothing() -> None:
    assert not any(allows(frozenset(), scope) for scope in Scope)


@pytest.mark.parametrize(
    "text", ["fbx", "fbx__", f" {TEXT}", f"{TEXT}\n", f"{TEXT}a", TEXT.replace("fbx", "sk")]
)
def test_what_is_no_key_is_malformed(text: str) -> None:
    assert parse_key(text) is KeyRefusal.KEY_MALFORMED
