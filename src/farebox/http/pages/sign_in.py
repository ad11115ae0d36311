"""Signing in with an API key, and out again; and who is looking at a page."""

from urllib.parse import urlsplit
from uuid import UUID

from litestar import Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.datastructures import Cookie
from litestar.response import Redirect
from msgspec import Struct

from farebox.access.key import KeyRefusal, digest_of, parse_key
from farebox.http.pages.form import read_form
from farebox.http.pages.page import THEME_COOKIE, THEMES, Page, PageRequest, Viewer, render
from farebox.http.pages.session import (
    SESSION_LENGTH,
    SessionRefusal,
    check_console_key,
    check_session,
    read_claim,
    seal_session,
)
from farebox.http.state import State
from farebox.postgres.access import find_api_key
from farebox.postgres.console import find_session_key
from farebox.postgres.session import transaction, unbound

SESSION_COOKIE = "farebox_session"
_HOME = "/console"
_MESSAGES: dict[KeyRefusal | SessionRefusal, str] = {
    KeyRefusal.KEY_MISSING: "Enter an API key. It begins with fbx_.",
    KeyRefusal.KEY_MALFORMED: "An API key reads fbx_, then 16 and 52 letters and digits.",
    KeyRefusal.KEY_UNKNOWN: "There is no such API key.",
    SessionRefusal.SESSION_ENDED: "Your session ended. Sign in again.",
    SessionRefusal.KEY_REVOKED: "This API key was revoked.",
    SessionRefusal.KEY_OF_CUSTOMER: "This API key belongs to one customer; the console shows all.",
    SessionRefusal.SCOPE_MISSING: "This API key may not read. The console needs read or manage.",
}


class SignInNeeded(Exception):
    """Nobody is signed in; the page is shown after signing in."""

    def __init__(self, refusal: SessionRefusal | None) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class _SignedIn(Struct, frozen=True):
    organization_id: UUID
    api_key_id: UUID
    secret_hash: bytes


def read_viewer(request: PageRequest, farebox: State) -> Viewer:
    """Return who looks, from the cookie; raises SignInNeeded."""
    text = request.cookies.get(SESSION_COOKIE)
    if text is None:
        raise SignInNeeded(None)
    claim = read_claim(text)
    if isinstance(claim, SessionRefusal):
        raise SignInNeeded(claim)
    # Bound to the organization that the cookie names: until the MAC is checked that is a claim,
    # and all it can reach is the digest it will be checked against.
    with transaction(farebox.pool, claim.organization_id) as connection:
        key = find_session_key(connection, claim.organization_id, claim.api_key_id)
    refusal = check_session(claim, key, farebox.clock())
    if refusal is not None or key is None:
        raise SignInNeeded(refusal)
    return Viewer(
        organization_id=claim.organization_id, organization=key.organization, key_name=key.name
    )


def ask_to_sign_in(request: PageRequest, needed: SignInNeeded) -> Page:
    """Answer a page nobody may see yet with the form that leads to it."""
    message = _MESSAGES.get(needed.refusal) if needed.refusal else None
    wanted = request.url.path if request.method == "GET" else _HOME
    query = f"?{request.url.query}" if request.method == "GET" and request.url.query else ""
    return _form(request, f"{wanted}{query}", message, 401)


@get("/sign-in", sync_to_thread=False)
def sign_in_form(request: PageRequest) -> Page:
    return _form(request, _HOME, None, 200)


@post("/sign-in", status_code=303)
async def sign_in(request: PageRequest, farebox: State) -> Response[str]:
    """Take the key once, give a cookie that does not hold it, and go to the page asked for."""
    form = await read_form(request)
    wanted = _own_path(form.get("next", ""))
    found = await _in_thread(farebox, form.get("key", "").strip())
    if not isinstance(found, _SignedIn):
        return _form(request, wanted, _MESSAGES[found], 401)
    ends_at = farebox.clock() + SESSION_LENGTH
    text = seal_session(found.organization_id, found.api_key_id, ends_at, found.secret_hash)
    return Redirect(
        wanted,
        status_code=303,
        cookies=[_cookie(request, text, int(SESSION_LENGTH.total_seconds()))],
    )


@post("/sign-out", status_code=303, sync_to_thread=False)
def sign_out(request: PageRequest) -> Redirect:
    return Redirect("/console/sign-in", status_code=303, cookies=[_cookie(request, "", 0)])


@post("/theme", status_code=303)
async def choose_theme(request: PageRequest) -> Redirect:
    """Remember light, dark or the system's choice, and go back to where one was."""
    form = await read_form(request)
    theme = form.get("theme", "")
    cookie = Cookie(
        THEME_COOKIE,
        path=_HOME,
        value=theme if theme in THEMES else "auto",
        max_age=31_536_000,
        httponly=True,
        samesite="strict",
    )
    return Redirect(_own_path(form.get("next", "")), status_code=303, cookies=[cookie])


def _form(request: PageRequest, wanted: str, message: str | None, status: int) -> Page:
    return render(
        request, "sign_in.html", viewer=None, status=status, wanted=wanted, message=message
    )


async def _in_thread(farebox: State, text: str) -> _SignedIn | KeyRefusal | SessionRefusal:
    return await sync_to_thread(_find, farebox, text)


def _find(farebox: State, text: str) -> _SignedIn | KeyRefusal | SessionRefusal:
    presented = parse_key(text)
    if isinstance(presented, KeyRefusal):
        return presented
    secret_hash = digest_of(presented)
    with unbound(farebox.pool) as connection:
        found = find_api_key(connection, secret_hash)
    if found is None:
        return KeyRefusal.KEY_UNKNOWN
    refusal = check_console_key(found.scopes, found.customer_key, found.revoked_at)
    return refusal or _SignedIn(found.organization_id, found.api_key_id, secret_hash)


def _own_path(text: str) -> str:
    """Return a path of the console, whatever was asked for: no redirect leaves it."""
    parts = urlsplit(text)
    inside = parts.path == _HOME or parts.path.startswith(f"{_HOME}/")
    if parts.scheme or parts.netloc or not inside or "\\" in text or not text.isprintable():
        return _HOME
    return text


def _cookie(request: PageRequest, text: str, seconds: int) -> Cookie:
    return Cookie(
        SESSION_COOKIE,
        path=_HOME,
        value=text,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
