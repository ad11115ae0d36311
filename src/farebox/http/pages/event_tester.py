"""The event tester: paste an event and see where it would end up; nothing is stored."""

import msgspec
from litestar import get, post
from litestar.concurrency import sync_to_thread

from farebox.catalog.meter import Meter
from farebox.flows.check_event import check_event
from farebox.http.pages.customers import encode_invoice
from farebox.http.pages.fate_text import FATE_TEXTS
from farebox.http.pages.form import read_form
from farebox.http.pages.page import Page, PageRequest, Viewer, render
from farebox.http.state import State
from farebox.postgres import catalog
from farebox.postgres.catalog import Kind
from farebox.postgres.session import transaction

_SAMPLE = """{{
  "specversion": "1.0",
  "id": "try-1",
  "source": "event-tester",
  "type": "{type}",
  "subject": "customer-key",
  "time": "{time}",
  "data": {{}}
}}
"""


@get("/event-tester", sync_to_thread=True)
def event_tester(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    """The form with a sample of a type that a meter reads."""
    with transaction(farebox.pool, viewer.organization_id, snapshot=True) as connection:
        meters = catalog.versions(connection, viewer.organization_id, Kind.METER)
    sample = _SAMPLE.format(
        type=_type_of(meters[0].definition) if meters else "request",
        time=farebox.clock().isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    return _render(request, farebox, viewer, sample, check=False)


@post("/event-tester", status_code=200)
async def test_event(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    form = await read_form(request)
    return await sync_to_thread(
        _render, request, farebox, viewer, form.get("event", ""), check=True
    )


def _render(
    request: PageRequest, farebox: State, viewer: Viewer, text: str, *, check: bool
) -> Page:
    checked = (
        check_event(
            farebox.pool,
            viewer.organization_id,
            text.encode(errors="replace"),
            farebox.clock(),
            farebox.settings.time_policy,
        )
        if check
        else None
    )
    return render(
        request,
        "event_tester.html",
        viewer=viewer,
        text=text,
        checked=checked,
        texts=FATE_TEXTS,
        encode=encode_invoice,
    )


def _type_of(definition: str) -> str:

    return msgspec.json.decode(definition, type=Meter).event_type
