"""When the database is gone, the queue is full, or the code is wrong."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from litestar import get
from litestar.testing import TestClient
from structlog.testing import capture_logs

from farebox.http.app import ROUTES, create_app
from farebox.http.authenticate import KeyMemory
from farebox.intake import ingest
from farebox.intake.ingest import Intake
from farebox.postgres import stream
from farebox.postgres.session import Pool, open_pool, transaction

EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}


@pytest.fixture
def unplugged(farebox: Any, runtime_url: str) -> Iterator[Any]:
    """Return a client whose server loses its database when the test closes the pool."""
    pool: Pool = open_pool(runtime_url, size=2)
    intake = Intake(pool, farebox.clock)
    app = create_app(replace(farebox, pool=pool, intake=intake))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, pool
    intake.close()
    pool.close()


def test_without_a_database_nothing_is_acknowledged(api: Any, unplugged: Any) -> None:
    client, pool = unplugged
    headers = {"Authorization": f"Bearer {api.key}"}
    assert 200 == client.get("/readyz").status_code
    assert 200 == client.post("/v1/events", json=[EVENT], headers=headers).status_code
    pool.close()
    for method, path in (("GET", "/v1/meters"), ("POST", "/v1/events"), ("GET", "/readyz")):
        body = [{**EVENT, "id": "2"}] if method == "POST" else None
        response = client.request(method, path, json=body, headers=headers)
        assert (503, "database_unavailable") == (response.status_code, response.json()["code"])
        assert "1" == response.headers["retry-after"]
    assert 200 == client.get("/healthz").status_code
    # A key that nobody remembers cannot be judged now; it is not called unknown.
    stranger = {"Authorization": f"Bearer fbx_{'b' * 16}_{'b' * 52}"}
    assert 503 == client.get("/v1/meters", headers=stranger).status_code


def test_too_much_at_once_is_told_to_wait(
    api: Any, farebox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the stream is held, one request commits, one waits, and the others are sent away."""
    monkeypatch.setattr(ingest, "EVENTS_WAITING", 1)
    api.ok("POST", "/v1/events", [{**EVENT, "id": "first"}])
    with ThreadPoolExecutor(5) as threads:
        with transaction(farebox.pool, api.organization_id) as connection:
            stream.lock_head(connection, api.organization_id)
            calls = [
                threads.submit(api, "POST", "/v1/events", [{**EVENT, "id": str(n)}])
                for n in range(5)
            ]
            refused = [next(as_completed(calls)).result()]
        answers = [call.result() for call in calls]
    assert (429, "overloaded") == (refused[0].status_code, refused[0].json()["code"])
    assert "1" == refused[0].headers["retry-after"]
    accepted = [answer for answer in answers if answer.status_code == 200]
    assert {200, 429} == {answer.status_code for answer in answers}
    monkeypatch.undo()
    again = api.ok("POST", "/v1/events", [{**EVENT, "id": str(n)} for n in range(5)])
    assert len(accepted) == again["duplicates"]


def test_a_bug_is_logged_under_the_id_that_is_answered(farebox: Any) -> None:
    @get("/broken", sync_to_thread=False)
    def broken() -> None:
        raise ZeroDivisionError("the secret detail")

    app = create_app(farebox, routes=[*ROUTES, broken])
    with TestClient(app, raise_server_exceptions=False) as client, capture_logs() as logs:
        response = client.get("/broken")
    assert (500, "internal") == (response.status_code, response.json()["code"])
    assert "secret" not in response.text
    assert next(log["request"] for log in logs if log["event"] == "internal") in response.text


def test_the_memory_of_keys_is_bounded(
    farebox: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farebox.access.key import digest_of, make_key, parse_key
    from farebox.http import authenticate

    monkeypatch.setattr(authenticate, "_REMEMBERED_MAX", 1)
    memory = KeyMemory(farebox.pool, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    other = api.ok("POST", "/v1/api_keys", {"scopes": ["read"]})["key"]
    digests = [digest_of(parse_key(text)) for text in (api.key, other)]  # type: ignore[arg-type]
    for digest in digests:
        assert memory.find(digest) is not None
    assert [False, True] == [memory.recall(digest) is not None for digest in digests]
    assert memory.find(digest_of(make_key(os.urandom(42))[1])) is None


def test_a_clock_that_is_set_back_makes_no_key_last(farebox: Any, api: Any) -> None:
    from farebox.access.key import digest_of, parse_key

    now = [datetime(2026, 1, 2, tzinfo=UTC)]
    memory = KeyMemory(farebox.pool, lambda: now[0])
    digest = digest_of(parse_key(api.key))  # type: ignore[arg-type]
    memory.find(digest)
    assert memory.recall(digest) is not None
    now[0] = datetime(2026, 1, 1, tzinfo=UTC)
    assert memory.recall(digest) is None
