"""Draws that events name: their ids are read alike in the database."""

import random
from collections.abc import Callable
from uuid import UUID

import pytest

from farebox.access.id import Prefix, decode_numbered, encode_id, encode_numbered
from farebox.postgres.session import Pool, transaction


def pools_read(pool: Pool, organization_id: UUID, texts: list[str]) -> list[UUID | None]:
    with transaction(pool, organization_id) as connection:
        rows = connection.execute(
            "select draw_pool(t) from unnest(%s::text[]) with ordinality u(t, n) order by n",
            (texts,),
        ).fetchall()
    return [row[0] for row in rows]


def test_the_database_reads_the_pool_of_a_draw_as_the_server_writes_it(
    pool: Pool, new_organization: Callable[[], UUID]
) -> None:
    chance = random.Random(1)
    known = [UUID(int=0), UUID(int=(1 << 128) - 1), UUID(int=1 << 63), UUID(int=1 << 64)]
    known += [UUID(int=chance.getrandbits(128)) for _ in range(500)]
    texts = [encode_numbered(Prefix.DRAW, one, at + 1) for at, one in enumerate(known)]
    assert known == pools_read(pool, new_organization(), texts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "drw_1",
        "not a draw",
        encode_id(Prefix.HOLD, UUID(int=5)) + "_1",
        encode_id(Prefix.DRAW, UUID(int=5)).upper() + "_1",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_1x",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_" + "9" * 19,
        encode_id(Prefix.DRAW, UUID(int=5)).replace("0", "o"),
        encode_id(Prefix.DRAW, UUID(int=5)).replace("drw_0", "drw_8") + "_1",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_1\n",
    ],
)
def test_any_other_text_is_no_draw(
    pool: Pool, new_organization: Callable[[], UUID], text: str
) -> None:
    assert None is decode_numbered(Prefix.DRAW, text)
    assert [None] == pools_read(pool, new_organization(), [text])
