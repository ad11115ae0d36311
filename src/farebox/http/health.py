"""Whether this process lives, and whether it can work."""

import asyncio

from litestar import Response, Router, get

from farebox.http.operation import describe
from farebox.http.state import State


@get(
    "/healthz",
    operation_id="healthz",
    opt=describe("Whether this process is alive", answer=dict[str, str]),
)
async def healthz() -> dict[str, str]:
    """Answer."""
    return {"status": "alive"}


@get(
    "/readyz",
    operation_id="readyz",
    opt=describe("Whether the database answers", answer=dict[str, str]),
)
async def readyz(farebox: State) -> Response[dict[str, str]]:
    """Ask the database; raises psycopg.OperationalError, which is a 503."""
    await asyncio.get_running_loop().run_in_executor(None, _ask, farebox)
    return Response({"status": "ready", "version": farebox.settings.version})


def _ask(farebox: State) -> None:
    with farebox.pool.connection(timeout=2) as connection:
        connection.execute("select 1")


routes = Router("/", route_handlers=[healthz, readyz], tags=["Health"])
