"""What may not stand anywhere in an event: characters, numbers and depths no store can keep."""

import re
from collections.abc import Iterable
from decimal import Decimal

from farebox.events.event import Json
from farebox.events.json_text import OUT_OF_RANGE
from farebox.events.limits import DEPTH_MAX, EXPONENT_MAX, NUMBER_LENGTH_MAX
from farebox.events.refusal import PRECEDENCE, EventCode, Fault, pointer_to

Path = tuple[str | int, ...]

_HALF_OR_NULL = re.compile("[\x00\ud800-\udfff]")
_INTEGER_END = 10**NUMBER_LENGTH_MAX
_INTEGER_START = -(10 ** (NUMBER_LENGTH_MAX - 1))  # the sign is a character too
_MESSAGES = {
    EventCode.NULL_CHARACTER: "the null character (\\u0000) cannot be stored; leave it out",
    EventCode.LONE_SURROGATE: "half of a surrogate pair is not a character; send both halves",
    EventCode.NUMBER_OUT_OF_RANGE: (
        f"a number takes at most {NUMBER_LENGTH_MAX} characters and an exponent between "
        f"-{EXPONENT_MAX} and {EXPONENT_MAX}"
    ),
    EventCode.NESTED_TOO_DEEP: f"data may nest at most {DEPTH_MAX} levels of arrays and objects",
}


def content_fault(container: dict[str, Json] | list[Json], path: Path = ()) -> Fault | None:
    """Return the first fault by precedence, then by place, of all that `container` holds.

    `path` is where in its event the container stands, () for the event itself.
    """
    found: list[tuple[EventCode, Path]] = []
    _inspect(container, path, found)
    if not found:
        return None
    code, where = min(found, key=lambda fault: PRECEDENCE[fault[0]])
    return Fault(code, pointer_to(where), _MESSAGES[code])


def _inspect(
    container: dict[str, Json] | list[Json], path: Path, found: list[tuple[EventCode, Path]]
) -> None:
    if len(path) > DEPTH_MAX:
        found.append((EventCode.NESTED_TOO_DEEP, path))
        return
    members: Iterable[tuple[str | int, Json]]
    if isinstance(container, dict):
        members = container.items()
        if not "".join(container).isprintable():
            for key in container:
                _inspect_text(key, (*path, key), found)
    else:
        members = enumerate(container)
    for step, member in members:
        if isinstance(member, str):
            # What is printable holds neither; asking that first is ten times as fast.
            if not member.isprintable():
                _inspect_text(member, (*path, step), found)
        elif isinstance(member, int):
            if not _INTEGER_START < member < _INTEGER_END:
                found.append((EventCode.NUMBER_OUT_OF_RANGE, (*path, step)))
        elif isinstance(member, Decimal):
            if member is OUT_OF_RANGE:
                found.append((EventCode.NUMBER_OUT_OF_RANGE, (*path, step)))
        elif member is not None:
            assert isinstance(member, (dict, list)), type(member)
            _inspect(member, (*path, step), found)


def _inspect_text(text: str, path: Path, found: list[tuple[EventCode, Path]]) -> None:
    for match in _HALF_OR_NULL.finditer(text):
        null = match[0] == "\x00"
        found.append((EventCode.NULL_CHARACTER if null else EventCode.LONE_SURROGATE, path))
