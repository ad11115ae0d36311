"""SIGKILL while units are drawn; afterwards everything the clients were told must be in the ledger.

Clients draw, hold, settle, give back and grant, each under a key of its own, and ask again until
they are answered. The worker, the server, a backend or all of PostgreSQL is killed in between,
sometimes while somebody holds a pool.
"""

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import cycle
from typing import Any
from uuid import UUID

import pytest
from farebox_faults import RECOVERY_SECONDS, Service, Victim, exchange, new_id

from farebox.access.id import Prefix, decode_numbered
from farebox.flows.create_organization import create_organization
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.policy import Limit, LimitMode, Policy
from farebox.ledger.pool import PoolDefinition
from farebox.postgres.session import open_pool
from farebox.postgres.verify import Finding

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults")]

CLIENTS = 5
LATER = {"overloaded", "database_unavailable"}
"""What a client is told when it has to ask again."""
POLICIES: dict[str, Policy] = {
    "scarce": Policy(hold_seconds=2),  # it runs dry, and is refilled now and then
    "owed": Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=Decimal(10**6))),
    "soft": Policy(limit=Limit(mode=LimitMode.SOFT)),
}
_AT_WORK = (
    "select not exists (select from pool where organization_id = %s and key = 'scarce'"
    " for update skip locked)"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ledger_seed" in metafunc.fixturenames:
        long = metafunc.config.getoption("--faults-long")
        metafunc.parametrize("ledger_seed", range(1, 13) if long else (1, 2))


@dataclass(frozen=True)
class Told:
    """The answer that a client got at last. granted: as JSON; none where it was refused."""

    pool: str
    verb: str
    key: str
    amount: Decimal
    granted: dict[str, Any] | None
    code: str | None
    tries: int


class Client(threading.Thread):
    """Does one thing after the other, each under a key, until told to stop."""

    def __init__(self, port: int, key: str, name: str, seed: int) -> None:
        super().__init__(name=name)
        self._port, self._key = port, key
        self._rng = random.Random(f"{seed}/{name}")
        self._stop_asked = threading.Event()
        self._asked = 0
        self.told: list[Told] = []
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Let what is under way be answered, then end."""
        self._stop_asked.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                self._step(self._rng.choice(list(POLICIES)))
        except BaseException as error:
            self.failure = error

    def _step(self, pool: str) -> None:
        amount = self._amount()
        if self._rng.random() < 0.02:
            return self._grant(pool)
        if self._rng.random() < 0.6:
            self._ask("draw", pool, "/v1/authorize", {"pool": pool, "amount": str(amount)}, amount)
            return None
        body = {"pool": pool, "amount": str(amount), "hold": {}}
        held = self._ask("hold", pool, "/v1/authorize", body, amount)
        if held.granted is None:
            return None
        path = f"/v1/holds/{held.granted['hold']}"
        if self._rng.random() < 0.2:
            more = self._amount()
            self._ask("extend", pool, f"{path}/extend", {"amount": str(more)}, more)
        if self._rng.random() < 0.1:
            time.sleep(0.1)
        if self._rng.random() < 0.2:
            self._ask("release", pool, f"{path}/release", {}, Decimal(0))
        else:
            used = amount * self._rng.randrange(0, 6) / 4
            self._ask("settle", pool, f"{path}/settle", {"amount": str(used)}, used)
        return None

    def _amount(self) -> Decimal:
        return Decimal(self._rng.randrange(1, 500)).scaleb(-2)

    def _grant(self, pool: str) -> None:
        key, amount = self._next_key(), Decimal(self._rng.randrange(1, 20))
        body = {"key": key, "amount": str(amount)}
        status, answer, tries = self._until_answered(f"/v1/pools/{pool}/grants", body, key)
        assert status in (200, 201), answer
        self.told.append(Told(pool, "grant", key, amount, answer, None, tries))

    def _ask(self, verb: str, pool: str, path: str, body: dict[str, Any], amount: Decimal) -> Told:
        key = self._next_key()
        status, answer, tries = self._until_answered(path, {**body, "key": key}, None)
        code = None if status == 200 else answer["code"]
        granted = answer if status == 200 else None
        told = Told(pool, verb, key, amount, granted, code, tries)
        self.told.append(told)
        return told

    def _next_key(self) -> str:
        self._asked += 1
        return f"{self.name}.{self._asked}"

    def _until_answered(
        self, path: str, body: dict[str, Any], header: str | None
    ) -> tuple[int, dict[str, Any], int]:
        """Ask until there is an answer; what was not answered may have moved units, or not."""
        content = json.dumps(body).encode()
        deadline = time.monotonic() + RECOVERY_SECONDS
        tries = 0
        while True:
            tries += 1
            with suppress(OSError, http.client.HTTPException):
                status, text = post(self._port, self._key, path, content, header)
                answer = json.loads(text)
                assert status != 500, answer
                if answer.get("code") not in LATER:
                    return status, answer, tries
            assert time.monotonic() < deadline, "it is never answered"
            time.sleep(0.02)


def post(
    port: int, key: str, path: str, content: bytes, idempotency_key: str | None
) -> tuple[int, bytes]:
    if idempotency_key is None:
        return exchange(port, key, "POST", path, content, "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Idempotency-Key": idempotency_key,
    }
    try:
        connection.request("POST", path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Town:
    """A service with one organization, its pools and its clients."""

    def __init__(self, service: Service, seed: int) -> None:
        self.service, self.seed = service, seed
        self.rng = random.Random(seed)
        self.told: list[Told] = []
        self.pools: dict[str, UUID] = {}
        now = datetime.now(UTC)
        self.organization_key = f"ledger-{new_id()}"
        with open_pool(service.runtime_url, size=2) as connections:
            self.organization_id, self.key = create_organization(
                connections, self.organization_key, "Faults", now, new_id, os.urandom
            )
            for key, policy in POLICIES.items():
                definition = PoolDefinition(key=key, unit="token", policy=policy)
                done = put_pool(connections, self.organization_id, definition, now, new_id())
                assert isinstance(done, PutPool)
                self.pools[key] = done.pool_id
        self._victims = cycle(self.rng.sample(list(Victim), len(Victim)))
        service.start()

    def kill_among_clients(self, number: int) -> None:
        """Let clients work, kill somebody, let all recover and be answered."""
        clients = [
            Client(self.service.port, self.key, f"{number}.{place}", self.seed)
            for place in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(self.rng.uniform(0.1, 0.7))
        if self.rng.random() < 0.7:
            self._await_work()
        self.service.kill(next(self._victims), self.rng)
        time.sleep(0.2)
        for client in clients:
            client.stop()
            self.told += client.told

    def _await_work(self) -> None:
        """Return while somebody holds a pool, or in the next moment."""
        deadline = time.monotonic() + 2
        with self.service.owner() as owner:
            while time.monotonic() < deadline:
                if owner.execute(_AT_WORK, (self.organization_id,)).fetchone() == (True,):
                    break
        time.sleep(self.rng.uniform(0, 0.003))


def test_what_clients_were_told_is_in_the_ledger(
    service: Service, ledger_seed: int, request: pytest.FixtureRequest
) -> None:
    town = Town(service, ledger_seed)
    kills = 20 if request.config.getoption("--faults-long") else len(Victim)
    for number in range(kills):
        town.kill_among_clients(number)
    verbs = Counter(one.verb for one in town.told)
    again = sum(one.tries > 1 for one in town.told)
    repeated = sum(bool(one.granted and one.granted.get("repeated")) for one in town.told)
    refused = Counter(one.code for one in town.told if one.code is not None)
    print(
        f"seed {ledger_seed}: {dict(verbs)}, refused {dict(refused)},"
        f" {again} asked again, {repeated} of them had moved units"
    )
    audit_moves(town)
    audit_grants(town)
    audit_totals(town)
    audit_proof(town)
    assert again
    assert refused["insufficient_balance"]


def ledger(town: Town, query: str) -> list[tuple[Any, ...]]:
    with town.service.owner() as owner:
        return owner.execute(query.encode(), (town.organization_id,)).fetchall()


def audit_moves(town: Town) -> None:
    """Whatever was granted moved these units once; whatever was refused moved nothing."""
    rows = ledger(
        town,
        "select f.key, f.pool_id, f.operation,"
        "  sum(t.amount) filter (where t.target = 'used'),"
        "  sum(t.amount) filter (where t.target = 'held'),"
        "  sum(t.amount) filter (where t.source = 'held')"
        " from transfer f join transfer t on t.pool_id = f.pool_id and t.operation = f.operation"
        " where f.organization_id = %s and f.key is not null group by 1, 2, 3",
    )
    moved = {key: (pool_id, operation, amounts) for key, pool_id, operation, *amounts in rows}
    assert len(rows) == len(moved), "each key stands once"
    asked = {one.key: one for one in town.told if one.verb != "grant"}
    assert moved.keys() == {one.key for one in asked.values() if one.granted is not None}
    for key, (pool_id, operation, (used, held, back)) in moved.items():
        one = asked[key]
        assert one.granted is not None
        assert town.pools[one.pool] == pool_id
        assert (pool_id, operation) == decode_numbered(Prefix.DRAW, one.granted["id"])
        match one.verb:
            case "draw":
                assert (one.amount, None, None) == (used, held, back)
            case "hold" | "extend":
                assert (None, one.amount, None) == (used, held, back)
            case "settle":
                assert one.amount == (used or 0)
            case "release":
                assert (None, None) == (used, held)
                assert Decimal(one.granted["amount"]) == back
        if one.verb != "release":
            assert one.amount == Decimal(one.granted["amount"])


def audit_grants(town: Town) -> None:
    """Each grant came once, with what it was asked for."""
    rows = ledger(
        town,
        "select g.key, g.pool_id, g.amount, t.amount from pool_grant g join transfer t"
        " on t.pool_id = g.pool_id and t.sequence = g.number"
        " where g.organization_id = %s and g.key is not null",
    )
    asked = [one for one in town.told if one.verb == "grant"]
    assert sorted((one.key, town.pools[one.pool], one.amount, one.amount) for one in asked) == (
        sorted(rows)
    )


def audit_totals(town: Town) -> None:
    """What each pool has used is the sum of the answers, and a hard pool never went beyond."""
    for pool, pool_id in town.pools.items():
        used = sum(
            (
                one.amount
                for one in town.told
                if one.pool == pool and one.granted is not None and one.verb in ("draw", "settle")
            ),
            Decimal(0),
        )
        with town.service.owner() as owner:
            row = owner.execute("select used from pool where pool_id = %s", (pool_id,)).fetchone()
            lowest = owner.execute(
                "select min(available_after), count(*) filter (where reason = 'drawn'"
                "  and source <> 'grant') from transfer where pool_id = %s",
                (pool_id,),
            ).fetchone()
        assert (used,) == row
        assert lowest is not None
        assert lowest[0] >= 0
        assert pool != "scarce" or lowest[1] == 0


def audit_proof(town: Town) -> None:
    """The ledger proves itself, and the command says so while the server runs."""
    found: list[Finding] = []
    with open_pool(town.service.runtime_url, size=1) as connections:
        verify_ledger(connections, town.organization_id, found.append)
    assert [] == found
    command = [sys.executable, "-m", "farebox.cli.main", "verify", "--data"]
    done = subprocess.run(
        [*command, str(town.service.data), "--organization", town.organization_key],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (0, True) == (done.returncode, "nothing wrong" in done.stdout), done.stdout + done.stderr
