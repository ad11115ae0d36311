"""Customers: who pays, and the subjects that use on their behalf."""

from litestar import Request, Response, Router, get, put
from litestar.datastructures import State as LitestarState
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.catalog.customer import Customer
from farebox.flows.edit_draft import EditCode, tag_of
from farebox.flows.put_customer import SubjectCode, put_customer
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.body import read_keyed
from farebox.http.code import HttpCode
from farebox.http.definition import IfMatch, tagged, untag
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, after_key, page_of
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.postgres.customer_list import search_customers
from farebox.postgres.session import transaction


class CustomerAnswer(Struct, frozen=True):
    """The customer as it stands; `changed` is false where it stood so already."""

    changed: bool
    customer: Customer


_BODY = {
    "name": "Acme Inc.",
    "timezone": "America/New_York",
    "subjects": ["acme-prod", "acme-dev"],
    "metadata": {"crm": "0017"},
}
_CUSTOMER = {
    "key": "acme",
    "name": "Acme Inc.",
    "timezone": "America/New_York",
    "email": "",
    "address": [],
    "country": "",
    "partner": None,
    "parent": None,
    "rate_card": None,
    "subjects": ["acme-dev", "acme-prod"],
    "metadata": {"crm": "0017"},
}


@put(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_customer",
    opt=describe(
        "Put a customer: add or change it",
        request=Customer,
        answer=CustomerAnswer,
        codes=[HttpCode.KEY_MISMATCH, SubjectCode.SUBJECT_TAKEN, EditCode.PRECONDITION_FAILED],
        examples=[
            Example(
                path="/v1/customers/acme",
                body=_BODY,
                status=201,
                answer={"changed": True, "customer": _CUSTOMER},
            ),
            Example(
                path="/v1/customers/acme",
                body=_BODY,
                answer={"changed": False, "customer": _CUSTOMER},
            ),
            Example(
                path="/v1/customers/initech",
                body={"subjects": ["acme-dev"]},
                status=409,
            ),
        ],
        description=(
            "`subjects` is the whole list: one that is left out ends now, or after the last of its "
            "events that is dated ahead and has burned a pool; a new one counts from the "
            "beginning, so that usage sent before is found. Answers 201 for a new customer."
        ),
    ),
)
def put_one(
    farebox: State, principal: Principal, key: str, body: RawBody, if_match: IfMatch = None
) -> Response[bytes]:
    """Put a customer."""
    customer = read_keyed(body, key, Customer)
    done = put_customer(
        farebox.pool,
        principal.organization_id,
        customer,
        farebox.clock(),
        farebox.new_id(),
        if_match=untag(if_match),
    )
    if isinstance(done, list):
        raise refused_for(done)
    answer = CustomerAnswer(done.changed, done.customer)
    return tagged(answer, tag_of(done.customer), 201 if done.created else 200)


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_customers",
    opt=describe(
        "List customers by key",
        answer=Page[Customer],
        examples=[
            Example(
                path="/v1/customers?metadata.crm=0017",
                answer={"items": [_CUSTOMER], "next_cursor": None},
            )
        ],
        description="`metadata.NAME=VALUE` finds those with that metadata; all given must match.",
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    request: Request[object, object, LitestarState],
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[Customer]:
    """List customers, found by metadata where that is asked."""
    unknown = [
        name
        for name in request.query_params
        if name not in ("cursor", "limit") and not name.startswith("metadata.")
    ]
    if unknown:
        detail = f"there is no query parameter {unknown[0][:100]!r} here; metadata.NAME finds"
        raise refused(HttpCode.PARAMETER_INVALID, detail)
    metadata = {
        name.removeprefix("metadata."): value
        for name, value in request.query_params.items()
        if name.startswith("metadata.")
    }
    after = after_key(cursor)
    with transaction(farebox.pool, principal.organization_id) as connection:
        found = search_customers(
            connection,
            principal.organization_id,
            after=after,
            limit=limit + 1,
            key=visible_customer(principal, None),
            metadata=metadata,
        )
    return page_of(found, limit, lambda customer: [customer.key])


@get(
    "/{key:str}",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_customer",
    opt=describe(
        "Read a customer, with the subjects that are its own now",
        answer=Customer,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/customers/acme", answer=_CUSTOMER)],
    ),
)
def get_one(farebox: State, principal: Principal, key: str) -> Response[bytes]:
    """Read a customer."""
    found = []
    if principal.customer_key in (None, key):
        with transaction(farebox.pool, principal.organization_id) as connection:
            found = search_customers(connection, principal.organization_id, key=key)
    if not found:
        raise refused(HttpCode.NOT_FOUND, f"there is no customer {key!r}")
    return tagged(found[0], tag_of(found[0]))


routes = Router("/v1/customers", route_handlers=[put_one, list_all, get_one], tags=["Customers"])
