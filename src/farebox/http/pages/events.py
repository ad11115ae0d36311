"""Events: the latest, and one with what became of it."""

from litestar import get

from farebox.flows.explain_event import explain_event
from farebox.http.pages.customers import encode_invoice
from farebox.http.pages.fate_text import FATE_TEXTS
from farebox.http.pages.json_view import indented
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.state import State
from farebox.postgres import console
from farebox.postgres.session import transaction

PAGE = 50
_END = 1 << 62


@get("/events", sync_to_thread=True)
def event_list(request: PageRequest, farebox: State, viewer: Viewer, before: int = _END) -> Page:
    """Events in the order they came in, the last first."""
    organization_id = viewer.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        rows = console.latest_events(
            connection, organization_id, min(max(before, 0), _END), PAGE + 1
        )
    return render(
        request,
        "events.html",
        viewer=viewer,
        events=rows[:PAGE],
        live=before == _END,
        more=rows[PAGE - 1].sequence if len(rows) > PAGE else None,
    )


@get("/event", sync_to_thread=True)
def event_page(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    source: str = "",
    id: str = "",  # noqa: A002 - the attribute's name in CloudEvents
) -> Page:
    """One event, by what names it: its source and id."""
    wanted = (source.replace("\0", ""), id.replace("\0", ""))
    explained = explain_event(farebox.pool, viewer.organization_id, *wanted)
    if explained is None:
        raise missing(f"event {wanted[1]!r} from {wanted[0]!r}")
    return render(
        request,
        "event.html",
        viewer=viewer,
        explained=explained,
        event=explained.event,
        payload=indented(explained.event.payload),
        texts=FATE_TEXTS,
        encode=encode_invoice,
    )
