"""The application of one server process: made by granian in each of its workers."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from litestar import Litestar
from litestar.types import ASGIApp

from farebox.cli.background import DATABASE_URL, background_process, meanwhile
from farebox.cli.collector import calm_collector, collect_daily
from farebox.cli.runtime import new_id, steady_clock
from farebox.cli.settings import read_settings
from farebox.cli.stop import told_to_stop
from farebox.http.app import Farebox, create_app
from farebox.http.state import Settings, State
from farebox.intake.intake import Intake
from farebox.postgres.session import open_pool

SWITCH_SECONDS = 0.0001
"""So long a thread may keep the interpreter while requests wait for it."""


def create() -> ASGIApp:
    """Return the application, with its background work tied to the server's life."""
    url = os.environ[DATABASE_URL]
    pool, clock = open_pool(url), steady_clock()
    intake = Intake(pool, url, clock)
    private = read_settings().webhook_private_addresses
    settings = Settings(webhook_private_addresses=private)
    state = State(pool, intake, clock, new_id, os.urandom, settings)

    @asynccontextmanager
    async def background(app: Litestar) -> AsyncIterator[None]:
        calm_collector()
        sys.setswitchinterval(SWITCH_SECONDS)
        assert isinstance(app, Farebox)
        with closing(pool):
            async with (
                told_to_stop(app.live.close),
                intake.opened(),
                background_process(),
                meanwhile(collect_daily()),
            ):
                yield

    return create_app(state, lifespan=[background])
