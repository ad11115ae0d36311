"""The catalog as code: a whole document applied at once, or only what it would change."""

from typing import Annotated

from litestar import Response, Router, post
from litestar.params import QueryParameter, RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.catalog.diff import Change
from farebox.catalog.document import Document, read_document
from farebox.catalog.problem import Problem
from farebox.flows.apply_catalog import apply_catalog
from farebox.http.authenticate import Principal, requires
from farebox.http.idempotency import (
    IdempotencyKey,
    earlier_answer,
    keep_answer,
    reply_with,
)
from farebox.http.operation import Example, describe
from farebox.http.problem import refused_for
from farebox.http.state import State


class ApplyAnswer(Struct, frozen=True):
    """One change for every object of the document, in its order."""

    dry_run: bool
    changes: list[Change]


_YAML = """\
meters:
  - key: llm_calls
    event_type: llm.request
    aggregation: count
customers:
  - key: umbrella
    name: Umbrella
"""


@post(
    "/apply",
    guards=[requires(Scope.MANAGE)],
    status_code=200,
    sync_to_thread=True,
    operation_id="apply_catalog",
    opt=describe(
        "Apply a catalog document (YAML or JSON): all of it, or nothing",
        request=Document,
        request_types=("application/yaml", "application/json"),
        answer=ApplyAnswer,
        codes=[CatalogCode.MALFORMED],
        examples=[
            Example(
                path="/v1/catalog/apply?dry_run=true",
                body=_YAML,
                content_type="application/yaml",
                answer={
                    "dry_run": True,
                    "changes": [
                        {
                            "kind": "meter",
                            "key": "llm_calls",
                            "action": "unchanged",
                            "fields": [],
                        },
                        {
                            "kind": "customer",
                            "key": "umbrella",
                            "action": "create",
                            "fields": [],
                        },
                    ],
                },
            )
        ],
        description="Definitions are published. What the document does not mention stays.",
    ),
)
def apply(
    farebox: State,
    principal: Principal,
    body: RawBody,
    dry_run: Annotated[bool, QueryParameter(description="only say what would change")] = False,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Apply a document."""
    place = f"POST /v1/catalog/apply?dry_run={dry_run}"
    earlier = earlier_answer(farebox, principal, idempotency_key, place, body)
    if earlier is not None:
        return earlier
    document = read_document(body)
    if isinstance(document, list):
        raise refused_for(document)
    answer = apply_catalog(
        farebox.pool,
        principal.organization_id,
        document,
        farebox.clock(),
        farebox.new_id,
        dry_run=dry_run,
    )
    changes = [one for one in answer if isinstance(one, Change)]
    problems = [one for one in answer if isinstance(one, Problem)]
    if problems:
        raise refused_for(problems)
    reply = reply_with(ApplyAnswer(dry_run, changes))
    return keep_answer(farebox, principal, idempotency_key, place, body, reply)


routes = Router("/v1/catalog", route_handlers=[apply], tags=["Catalog"])
