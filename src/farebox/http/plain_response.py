"""The answer that handlers give by returning a value: JSON in which every number is plain."""

from typing import Any

from litestar import Response
from litestar.serialization import default_serializer
from litestar.types import Serializer

from farebox.catalog.plain_json import is_suspect, plain


class PlainResponse(Response[Any]):
    """What a handler returns, with plain numbers.

    Routes of documents and of money say otherwise: those keep the digits that they were written
    with, and those of their currency.
    """

    def render(
        self, content: Any, media_type: str, enc_hook: Serializer = default_serializer
    ) -> bytes:
        """Return the content of the answer."""
        body = super().render(content, media_type, enc_hook)
        if isinstance(content, str | bytes) or not is_suspect(body):
            return body
        return super().render(plain(content), media_type, enc_hook)
