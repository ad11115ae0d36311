"""The event tester: paste an event and see where it would end up; nothing is stored."""

from litestar import get, post

from farebox.http.pages.form import read_form
from farebox.http.pages.page import Page, PageRequest, Viewer, render
from farebox.http.state import State


@get("/event-tester", sync_to_thread=True)
def event_tester(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    return render(request, "event_tester.html", viewer=viewer, text="", checked=None)


@post("/event-tester", status_code=200)
async def test_event(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    form = await read_form(request)
    return render(request, "event_tester.html", viewer=viewer, text=form.get("event", ""), checked=None)
