"""The body of a request into events, in every mode of the CloudEvents HTTP binding."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from farebox.events.event import Event, Json
from farebox.events.json_text import NotJson, NotUtf8, decode_json
from farebox.events.limits import DEFAULT_LIMITS, Limits
from farebox.events.media_type import MediaType, parse_media_type
from farebox.events.read import read_event
from farebox.events.refusal import EventCode, Malformed, Rejection, RequestCode

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
LENIENT = "application/json"
NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"}) | {
    "application/cloudevents+x-ndjson",
    "application/cloudevents+ndjson",
}

Decoded = list[Event | Rejection] | Malformed
Headers = Iterable[tuple[str, str]]

_PREFIX = "ce-"
_BINARY_MODE = frozenset({"ce-specversion", "ce-id", "ce-source", "ce-type"})
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)


def decode(
    content_type: str, headers: Headers, body: bytes, limits: Limits = DEFAULT_LIMITS
) -> Decoded:
    """Read the events of one request, in the order in which they stand in it.

    `headers` may be in any case, and are only looked at for binary mode. Each event is read for
    itself, or refused for itself; Malformed is for a request in which no events can be told
    apart. Never raises on what was sent.
    """
    if len(body) > limits.body_bytes_max:
        message = f"a request may have at most {limits.body_bytes_max} bytes; send several"
        return Malformed(RequestCode.BODY_TOO_LARGE, message)
    media_type = parse_media_type(content_type)
    if not media_type.name.startswith("application/cloudevents"):
        attributes = [(name.lower(), value) for name, value in headers]
        if any(name in _BINARY_MODE for name, _ in attributes):
            return [_read_binary(content_type, attributes, body)]
    known = media_type.name in {STRUCTURED, BATCH, LENIENT} or media_type.name in NDJSON
    if not (known and media_type.is_utf8):
        return Malformed(RequestCode.UNSUPPORTED_MEDIA_TYPE, _media_type_message(media_type))
    if media_type.name in NDJSON:
        return _read_lines(body, limits)
    return _read_json(media_type.name, body, limits)


def _read_json(media_type: str, body: bytes, limits: Limits) -> Decoded:
    try:
        value = decode_json(body)
    except NotUtf8 as error:
        return Malformed(RequestCode.NOT_UTF8, str(error))
    except NotJson as error:
        return Malformed(RequestCode.MALFORMED_JSON, str(error))
    if isinstance(value, list) and media_type != STRUCTURED:
        if len(value) > limits.events_max:
            return _batch_too_large(limits)
        return [read_event(index, member) for index, member in enumerate(value)]
    if isinstance(value, dict) and media_type != BATCH:
        return [read_event(0, value)]
    wanted = {
        STRUCTURED: "one event, a JSON object",
        BATCH: "a JSON array of events",
        LENIENT: "an event or an array of events",
    }
    return Malformed(RequestCode.MALFORMED_JSON, f"{media_type} holds {wanted[media_type]}")


def _read_lines(body: bytes, limits: Limits) -> Decoded:
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    if len(lines) > limits.events_max:
        return _batch_too_large(limits)
    return [_read_line(index, line) for index, line in enumerate(lines)]


def _read_line(index: int, line: bytes) -> Event | Rejection:
    try:
        return read_event(index, decode_json(line))
    except NotUtf8 as error:
        return Rejection(index, EventCode.NOT_UTF8, "", str(error))
    except NotJson as error:
        return Rejection(index, EventCode.MALFORMED_JSON, "", str(error))


def _read_binary(content_type: str, headers: Headers, body: bytes) -> Event | Rejection:
    """Binary mode: attributes are headers (`ce-` and their name), the body is the data."""
    members: dict[str, Json] = {}
    for name, value in headers:
        if not name.startswith(_PREFIX):
            continue
        attribute = name.removeprefix(_PREFIX)
        if attribute in members or attribute in {"data", "data_base64", "datacontenttype"}:
            message = f"header {name} is given twice, or is no attribute"
            return Rejection(0, EventCode.ATTRIBUTE_INVALID, f"/{attribute}", message)
        members[attribute] = _header_text(value)
    if content_type:
        members["datacontenttype"] = content_type
    return read_event(0, members, body)


def _header_text(value: str) -> str:
    """Undo quotes, then one round of percent-encoding (HTTP binding 1.0, section 3.1.3.2).

    Bytes that are not UTF-8 become lone surrogates, and are refused as such.
    """
    quoted = _QUOTED.fullmatch(value.strip())
    plain = value.strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if "%" not in plain:
        return plain
    return unquote_to_bytes(plain).decode(errors="surrogateescape")


def _batch_too_large(limits: Limits) -> Malformed:
    message = f"a request may hold at most {limits.events_max} events; send several"
    return Malformed(RequestCode.BATCH_TOO_LARGE, message)


def _media_type_message(media_type: MediaType) -> str:
    if not media_type.is_utf8:
        return f"charset {media_type.charset!r} is not read; send UTF-8"
    return f"send {STRUCTURED}, {BATCH}, application/x-ndjson or ce- headers"
