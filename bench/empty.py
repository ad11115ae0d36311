"""An endpoint that does nothing, on the stack that the server runs on: what one request costs."""

import sys
from typing import Any

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.log import LogLevels
from litestar import Litestar, Request, get, post


@post("/empty", status_code=204)
async def empty(request: Request[Any, Any, Any]) -> None:
    """Take the request, and answer that there is nothing to say."""
    await request.body()


@post("/unread", status_code=204)
async def unread() -> None:
    """Answer without waiting for the request's body, which no endpoint that uses it can."""


@get("/readyz")
async def ready() -> dict[str, str]:
    return {}


def create() -> Litestar:
    return Litestar([empty, unread, ready], openapi_config=None)


if __name__ == "__main__":
    Granian(
        "bench.empty:create",
        factory=True,
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=1,
        log_access=False,
        log_level=LogLevels.warning,
    ).serve()
