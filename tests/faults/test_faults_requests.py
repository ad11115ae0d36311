"""A request that is cut, and a database that is gone: nothing half-written, nothing lost."""

import http.client
import json
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from farebox_faults import EVENT_TYPE, Service, exchange

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults")]


def event(identifier: str) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": identifier,
        "source": "faults",
        "type": EVENT_TYPE,
        "subject": "customer-0000",
        "data": {"units": 1},
    }


def stored(service: Service, organization_id: UUID) -> list[str]:
    query = "select id from event where organization_id = %s order by sequence"
    with service.owner() as owner:
        return [row[0] for row in owner.execute(query, (organization_id,))]


def send(service: Service, key: str, *identifiers: str) -> tuple[int, bytes]:
    body = json.dumps([event(identifier) for identifier in identifiers]).encode()
    return exchange(service.port, key, "POST", "/v1/events", body)


def cut_request(port: int, key: str, body: bytes, sent: int) -> None:
    """Announce the whole body, send a part of it and hang up."""
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/cloudevents-batch+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode() + body[:sent])
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while connection.recv(65_536):
                continue


def test_request_cut_anywhere_stores_nothing(running_service: Service) -> None:
    service = running_service
    organization_id, key = service.prepare(1, datetime(2026, 1, 1, tzinfo=UTC))
    body = json.dumps([event("cut-1"), event("cut-2")]).encode()
    first_event_ends = body.index(b"}}") + 2
    for sent in (0, 1, len(body) // 3, first_event_ends, len(body) - 1):
        cut_request(service.port, key, body, sent)

    assert 200 == send(service, key, "whole")[0]
    assert ["whole"] == stored(service, organization_id)


def test_database_gone_is_503_and_comes_back_without_restart(
    running_service: Service,
) -> None:
    service = running_service
    organization_id, key = service.prepare(1, datetime(2026, 1, 1, tzinfo=UTC))
    assert 200 == send(service, key, "before")[0]
    service.kill_database()
    try:
        status, text = send(service, key, "during")
        assert (503, "database_unavailable") == (status, json.loads(text)["code"])
        assert 503 == exchange(service.port, key, "GET", "/readyz")[0]
        assert 200 == exchange(service.port, key, "GET", "/healthz")[0]
    finally:  # other tests share it
        service.database.ensure_running()

    service.wait_ready()
    status, text = send(service, key, "before", "during")
    outcomes = [one["outcome"] for one in json.loads(text)["events"]]
    assert (200, ["duplicate", "accepted"]) == (status, outcomes)
    assert ["before", "during"] == stored(service, organization_id)


@pytest.mark.parametrize("seconds", [0.5, 2, 4])
def test_a_server_whose_database_is_gone_still_stops(service: Service, seconds: float) -> None:
    """At once, and while its background work tries to reconnect."""
    service.start()
    service.kill_database()
    time.sleep(seconds)
    assert service.stop(), service.log()


def test_client_that_hangs_up_before_the_answer_is_counted_once(
    running_service: Service,
) -> None:
    service = running_service
    organization_id, key = service.prepare(1, datetime(2026, 1, 1, tzinfo=UTC))
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/cloudevents+json",
        }
        connection.request("POST", "/v1/events", json.dumps(event("impatient")), headers)
        connection.close()

    status, text = send(service, key, "impatient", "patient")
    assert 200 == status
    assert {"accepted", "duplicate"} >= {one["outcome"] for one in json.loads(text)["events"]}
    assert ["impatient", "patient"] == sorted(stored(service, organization_id))
