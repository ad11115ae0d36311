"""Billing runs: invoice what is due, with what there is to look at before it is final."""

from datetime import datetime

import msgspec
from litestar import Response, Router, get, post
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope
from farebox.flows.bill import bill
from farebox.flows.warn_billing import BillingWarning
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.idempotency import IdempotencyKey, earlier_answer, keep_answer, reply_with
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Limit
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.postgres.billing_run import BillingRunRow, find_run, runs
from farebox.postgres.session import transaction


class BillingRunRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to invoice: what ended by `as_of`, by default now; without `finalize` as drafts."""

    as_of: datetime | None = None
    finalize: bool = True


class BillingRunView(Struct, frozen=True, kw_only=True):
    """A run; `invoices` it wrote, and `warnings` gathered before any of them was final."""

    id: str
    as_of: datetime
    finalize: bool
    status: str
    invoices: int
    warnings: list[BillingWarning]
    started_at: datetime
    finished_at: datetime | None


class BillingRunList(Struct, frozen=True):
    """The latest runs, newest first."""

    items: list[BillingRunView]


_RUN = {
    "id": "run_01jbsqz4e2e0rv8h9yj0fn5c7k",
    "as_of": "2026-01-01T00:00:00Z",
    "finalize": False,
    "status": "finished",
    "invoices": 0,
    "warnings": [],
    "started_at": "2026-10-01T00:00:00Z",
    "finished_at": "2026-10-01T00:00:00Z",
}


@post(
    "/",
    guards=[requires(Scope.MANAGE)],
    status_code=201,
    sync_to_thread=True,
    operation_id="start_billing_run",
    opt=describe(
        "Invoice what is due",
        request=BillingRunRequest,
        answer=BillingRunView,
        status=201,
        codes=[HttpCode.PARAMETER_INVALID],
        examples=[
            Example(
                path="/v1/billing_runs",
                body={"as_of": "2026-01-01T00:00:00Z", "finalize": False},
                status=201,
                answer=_RUN,
            )
        ],
        description=(
            "Running it again bills nothing twice. A run that was interrupted is completed by the"
            " next one. A run with `finalize` false writes drafts, which the next run replaces:"
            " use it to see the warnings first. `as_of` may not lie in the future."
        ),
    ),
)
def start(
    farebox: State,
    principal: Principal,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Run billing and answer when it is done."""
    place = "POST /v1/billing_runs"
    earlier = earlier_answer(farebox, principal, idempotency_key, place, body)
    if earlier is not None:
        return earlier
    wanted = read_body(body, BillingRunRequest)
    now = farebox.clock()
    as_of = wanted.as_of or now
    if as_of > now:
        # What has not ended may still be used.
        detail = "as_of lies in the future; a period is invoiced when it has ended"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/as_of")
    run_id = farebox.new_id()
    bill(
        farebox.pool,
        principal.organization_id,
        run_id,
        as_of,
        farebox.clock,
        farebox.new_id,
        finalize=wanted.finalize,
    )
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = find_run(connection, principal.organization_id, run_id)
    assert row is not None, "the run was just written"
    reply = reply_with(_view(row), 201)
    return keep_answer(farebox, principal, idempotency_key, place, body, reply)


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_billing_runs",
    opt=describe(
        "List the latest billing runs",
        answer=BillingRunList,
        examples=[Example(path="/v1/billing_runs?limit=1", answer={"items": [_RUN]})],
    ),
)
def list_all(farebox: State, principal: Principal, limit: Limit = PAGE_USUAL) -> BillingRunList:
    """List runs."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = runs(connection, principal.organization_id, limit)
    return BillingRunList([_view(row) for row in rows])


@get(
    "/{run:str}",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="get_billing_run",
    opt=describe(
        "Read a billing run",
        answer=BillingRunView,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/billing_runs/run_01jbsqz4e2e0rv8h9yj0fn5c7k", status=404)],
    ),
)
def get_one(farebox: State, principal: Principal, run: str) -> BillingRunView:
    """Read a run."""
    run_id = decode_id(Prefix.BILLING_RUN, run)
    row = None
    if run_id is not None:
        with transaction(farebox.pool, principal.organization_id) as connection:
            row = find_run(connection, principal.organization_id, run_id)
    if row is None:
        raise refused(HttpCode.NOT_FOUND, "there is no such billing run")
    return _view(row)


def _view(row: BillingRunRow) -> BillingRunView:
    return BillingRunView(
        id=encode_id(Prefix.BILLING_RUN, row.billing_run_id),
        as_of=row.as_of,
        finalize=row.finalize,
        status=row.status,
        invoices=row.invoices,
        warnings=msgspec.json.decode(row.warnings, type=list[BillingWarning]),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


routes = Router("/v1/billing_runs", route_handlers=[start, list_all, get_one], tags=["Billing"])
