"""Subjects: for whom they use, and since when."""

from datetime import datetime

import msgspec
from litestar import Response, Router, get, post
from litestar.params import RawBody
from msgspec import Struct
from psycopg import Connection

from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.flows.answer_once import Reply
from farebox.flows.move_subject import MoveCode, move_subject_in
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.idempotency import IdempotencyKey, change_once, reply_with
from farebox.http.operation import Example, describe
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.period.instant import BEGINNING, END
from farebox.postgres.customer import SubjectRow, subject_rows
from farebox.postgres.session import transaction


class Mapping(Struct, frozen=True):
    """Whose a subject is in [from, until); null: from the beginning, without end."""

    customer: str
    starts: datetime | None = msgspec.field(name="from")
    until: datetime | None


class SubjectView(Struct, frozen=True):
    """A subject and whose it was and is, oldest first."""

    subject: str
    mappings: list[Mapping]


class MoveAnswer(Struct, frozen=True):
    """A subject after a move; `changed` is false where it stood so already."""

    subject: str
    changed: bool
    mappings: list[Mapping]


class MoveRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To whom a subject moves, and from which instant on."""

    customer: str
    starts: datetime = msgspec.field(name="from")


_MAPPINGS = [{"customer": "acme", "from": None, "until": None}]


@get(
    "/{subject:str}",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="get_subject",
    opt=describe(
        "Read whose a subject was and is",
        answer=SubjectView,
        codes=[HttpCode.NOT_FOUND],
        examples=[
            Example(
                path="/v1/subjects/acme-dev",
                answer={"subject": "acme-dev", "mappings": _MAPPINGS},
            )
        ],
    ),
)
def get_subject(farebox: State, principal: Principal, subject: str) -> SubjectView:
    """Read a subject."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = subject_rows(connection, principal.organization_id, [subject])
    if not rows:
        raise refused(HttpCode.NOT_FOUND, f"no customer has a subject {subject!r}")
    return SubjectView(subject, [_mapping(row) for row in rows])


@post(
    "/{subject:str}/move",
    guards=[requires(Scope.MANAGE)],
    status_code=200,
    sync_to_thread=True,
    operation_id="move_subject",
    opt=describe(
        "Move a subject to a customer from an instant on",
        request=MoveRequest,
        answer=MoveAnswer,
        codes=[
            MoveCode.NO_SUCH_SUBJECT,
            MoveCode.PERIOD_FINAL,
            MoveCode.USAGE_BURNED,
            CatalogCode.UNKNOWN_CUSTOMER,
        ],
        examples=[
            Example(
                path="/v1/subjects/acme-dev/move",
                body={"customer": "acme", "from": "2026-10-01T00:00:00Z"},
                answer={"subject": "acme-dev", "changed": False, "mappings": _MAPPINGS},
            )
        ],
        description="Usage from that instant on is that customer's, also what was sent before.",
    ),
)
def move_subject(
    farebox: State,
    principal: Principal,
    subject: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Move a subject."""
    wanted = read_body(body, MoveRequest)

    def act(connection: Connection) -> Reply:
        moved = move_subject_in(
            connection,
            principal.organization_id,
            subject,
            wanted.customer,
            wanted.starts,
            farebox.clock(),
        )
        if isinstance(moved, list):
            raise refused_for(moved)
        mappings = [_mapping(row) for row in moved.mappings]
        return reply_with(MoveAnswer(subject, moved.changed, mappings))

    place = f"POST /v1/subjects/{subject}/move"
    return change_once(farebox, principal, idempotency_key, place, body, act)


def _mapping(row: SubjectRow) -> Mapping:
    return Mapping(
        row.customer_key,
        None if row.valid_from == BEGINNING else row.valid_from,
        None if row.valid_to == END else row.valid_to,
    )


routes = Router("/v1/subjects", route_handlers=[get_subject, move_subject], tags=["Subjects"])
