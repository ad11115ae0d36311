"""Forms as they are sent, and the check that a page of ours sent them."""

from urllib.parse import parse_qsl, urlsplit

from litestar.exceptions import ClientException, PermissionDeniedException

from farebox.http.pages.page import PageRequest

FORM_BYTES_MAX = 262_144
_FIELDS_MAX = 64
_UNCHANGING = ("GET", "HEAD", "OPTIONS")


async def read_form(request: PageRequest) -> dict[str, str]:
    """Return the fields of a form; raises ClientException beyond the limits.

    Only URL-encoded forms are read: no page of the console sends files.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            raise ClientException(f"A form may have at most {FORM_BYTES_MAX} bytes.")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError:
        raise ClientException("The form cannot be read.") from None
    return dict(fields)


def refuse_other_sites(request: PageRequest) -> None:
    """Refuse a change that a page of another site asks for.

    Browsers say where a request comes from (Sec-Fetch-Site, older ones Origin) and no page can
    make them lie, so no token is needed; the cookie is SameSite=Strict besides. A client that says
    neither is no browser and has no cookie that could be abused.
    """
    if request.method in _UNCHANGING:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        trusted = site in ("same-origin", "none")
    else:
        trusted = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not trusted:
        raise PermissionDeniedException("This form was sent by another site.")
