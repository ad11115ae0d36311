"""Data that came as bytes: the body of a request in binary mode, or `data_base64`."""

import base64
import binascii

from farebox.events.event import Json
from farebox.events.json_text import NotJson, decode_json
from farebox.events.media_type import parse_media_type
from farebox.events.refusal import EventCode, Fault


def read_body(members: dict[str, Json], body: bytes) -> tuple[Json, Json] | Fault:
    """Return `data` and `data_base64` of bytes, as `datacontenttype` says to read them.

    JSON is decoded, other text becomes a string, all else stays bytes, in base64. No bytes are
    no data.
    """
    if not body:
        return None, None
    content_type = members.get("datacontenttype")
    media_type = parse_media_type(content_type if isinstance(content_type, str) else "")
    if media_type.is_json:
        try:
            return decode_json(body), None
        except NotJson as error:
            return Fault(EventCode.DATA_NOT_JSON, "/data", f"is not JSON: {error}")
    if media_type.is_text and media_type.is_utf8:
        try:
            return body.decode(), None
        except UnicodeDecodeError:  # then it is not the text it was said to be
            return None, base64.b64encode(body).decode()
    return None, base64.b64encode(body).decode()


def read_data_base64(members: dict[str, Json]) -> tuple[Json, Json] | Fault:
    """Return `data` and `data_base64` of an event whose data was sent in base64."""
    text = members["data_base64"]
    if members.get("data") is not None:
        message = "an event carries data or data_base64, not both"
        return Fault(EventCode.ATTRIBUTE_INVALID, "/data_base64", message)
    try:
        body = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):  # wrong padding; letters that are not ASCII
        body = None
    if body is None:
        return Fault(EventCode.ATTRIBUTE_INVALID, "/data_base64", "must be base64 (RFC 4648)")
    return read_body(members, body)
