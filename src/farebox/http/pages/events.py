"""Events: the latest, and one with what became of it."""

from litestar import get
from litestar.response import Redirect

from farebox.events.admit import event_key
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.state import State
from farebox.postgres import console
from farebox.postgres.session import transaction

PAGE = 50
_AFTER_ALL = 1 << 62


@get("/events", sync_to_thread=True)
def event_list(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    before: int = _AFTER_ALL,
    source: str = "",
    id: str = "",  # noqa: A002 - the name of the attribute in CloudEvents
) -> Page | Redirect:
    """The latest events, or the one with this source and id."""
    organization_id = viewer.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        sequence = None
        if id:
            key = event_key(organization_id.bytes, source, id)
            sequence = console.sequence_of(connection, organization_id, key.hex())
        rows = console.latest_events(
            connection, organization_id, min(max(before, 0), _AFTER_ALL), PAGE + 1
        )
    if sequence is not None:
        return Redirect(f"/console/events/{sequence}", status_code=303)
    return render(
        request,
        "events.html",
        viewer=viewer,
        events=rows[:PAGE],
        source=source,
        id=id,
        live=before == _AFTER_ALL and not id,
        more=rows[PAGE - 1].sequence if len(rows) > PAGE else None,
    )


@get("/events/{sequence:int}", sync_to_thread=True)
def event_page(request: PageRequest, farebox: State, viewer: Viewer, sequence: int) -> Page:
    with transaction(farebox.pool, viewer.organization_id, snapshot=True) as connection:
        found = console.find_event(connection, viewer.organization_id, min(sequence, _AFTER_ALL))
    if found is None:
        raise missing("event with this sequence")
    return render(request, "event.html", viewer=viewer, event=found)
