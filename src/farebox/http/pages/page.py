"""What every page has in common: who looks, the template, the headers."""

from typing import Any
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Request, Response
from litestar.datastructures import Cookie
from litestar.exceptions import NotFoundException
from msgspec import Struct

from farebox import __version__
from farebox.http.pages.assets import load_assets
from farebox.http.pages.format import FILTERS
from farebox.http.pages.navigation import NAVIGATION

PageRequest = Request[Any, Any, Any]
Page = Response[str]

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "farebox_theme"

# Style and script come from files of this origin only: nothing inline, nothing from elsewhere.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Viewer(Struct, frozen=True, kw_only=True):
    """Who looks at a page: an organization, through one of its keys."""

    organization_id: UUID
    organization: str
    key_name: str


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("farebox.http.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(navigation=NAVIGATION, version=__version__, themes=THEMES)
    return environment


_ENVIRONMENT = _environment()


def render(
    request: PageRequest,
    template: str,
    *,
    viewer: Viewer | None,
    status: int = 200,
    cookies: tuple[Cookie, ...] = (),
    **values: Any,
) -> Page:
    """Return the template as a page; `viewer` is None where nobody has signed in."""
    theme = request.cookies.get(THEME_COOKIE)
    assets = load_assets()
    text = _ENVIRONMENT.get_template(template).render(
        viewer=viewer,
        assets=assets,
        assets_built=bool(assets.scripts),
        path=request.url.path,
        theme=theme if theme in THEMES else "auto",
        **values,
    )
    return Response(
        text,
        media_type=MediaType.HTML,
        status_code=status,
        headers=_HEADERS,
        cookies=list(cookies),
    )


def missing(what: str) -> NotFoundException:
    """Return the exception for a page of something that is not there."""
    return NotFoundException(f"There is no {what}.")
