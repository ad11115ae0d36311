"""The Content-Type of a request or of an event's data, and what it says about reading it."""

from functools import lru_cache

from msgspec import Struct


class MediaType(Struct, frozen=True):
    """A media type in lower case; its charset, where one was named, in lower case too."""

    name: str
    charset: str | None = None

    @property
    def is_utf8(self) -> bool:
        """Whether its text can be read as UTF-8; nothing said means yes."""
        return self.charset in (None, "utf-8", "utf8", "us-ascii")

    @property
    def is_json(self) -> bool:
        """Whether it is JSON; no media type at all means JSON (CloudEvents 1.0, section 3.1)."""
        return self.name in ("", "application/json", "text/json") or self.name.endswith("+json")

    @property
    def is_text(self) -> bool:
        """Whether it is text that is not JSON."""
        return self.name.startswith("text/") or self.name.endswith(("/xml", "+xml"))


@lru_cache(maxsize=256)
def parse_media_type(text: str) -> MediaType:
    """Read a Content-Type; parameters other than charset are ignored."""
    name, *parameters = text.split(";")
    charset = None
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return MediaType(name.strip().lower(), charset)
