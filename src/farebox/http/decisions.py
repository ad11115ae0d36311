"""POST /v1/authorize and what follows it, the live path: may I, and the units in the same step.

It stands before the framework's router, as the intake of events does.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from litestar.types import HTTPScope, Receive, Send

from farebox.access.id import Prefix, decode_numbered
from farebox.access.key import Scope as KeyScope
from farebox.catalog.cover import Cover
from farebox.flows.decide_pools import Asked, Outcome
from farebox.http.authenticate import KeyMemory, Principal
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.decision import (
    AuthorizeRequest,
    BatchDecisions,
    BatchRequest,
    Decision,
    DecisionProblem,
    Granted,
    answer_of,
    command_of,
    decision_problem,
    hold_command,
    read_request,
)
from farebox.http.pool_finder import PoolFinder, Target
from farebox.http.problem import MEDIA_TYPE, ProblemDetails, Refused, refused
from farebox.http.receive import JSON, Headers, principal_of, receive_body, send_content
from farebox.http.state import State
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.pool import PoolKey

AUTHORIZE = "/v1/authorize"
BATCH = "/v1/authorize/batch"
HOLDS = "/v1/holds/"
BATCH_MAX = 500
_COVERED = frozenset(
    {
        RefusalCode.FEATURE_NOT_ENTITLED,
        RefusalCode.INSUFFICIENT_BALANCE,
        RefusalCode.OVERAGE_LIMIT_EXCEEDED,
        RefusalCode.SPEND_CAP_EXCEEDED,
        RefusalCode.POOL_CLOSED,
    }
)
"""Refusals that a top-up or another plan would help against."""
_ENCODER = msgspec.json.Encoder()
_PROBLEM = (b"content-type", MEDIA_TYPE.encode())

Sent = tuple[int, tuple[bytes, bytes], bytes]


class DecisionsEndpoint:
    """Decides on pools; one for each process."""

    def __init__(self, farebox: State, key_memory: KeyMemory) -> None:
        self._farebox = farebox
        self._key_memory = key_memory
        self._finder = PoolFinder(farebox)

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request; raises Refused, Overloaded and psycopg.Error."""
        headers: Headers = dict(scope["headers"])
        principal = await principal_of(self._key_memory, headers, KeyScope.DRAW)
        limit = self._farebox.settings.limits.body_bytes_max
        body = await receive_body(headers, receive, limit)
        if body is None:
            return  # the client is gone, and what it asked is not known whole
        path = scope["path"]
        key = _header_key(headers)
        if path == AUTHORIZE:
            status, kind, content = await self._authorize(principal, body, key)
        elif path == BATCH:
            status, kind, content = await self._batch(principal, body)
        else:
            status, kind, content = await self._hold(principal, path, body, key)
        await send_content(send, status, kind, content)

    async def _authorize(self, principal: Principal, body: bytes, key: str | None) -> Sent:
        request = read_request(body)
        command = command_of(request, key)
        target = await self._finder.target(principal, request)
        if isinstance(target, Refusal):
            return await self._refused(principal, request, request.pool or "", None, target)
        if target.pool is None:
            return 200, JSON, _ENCODER.encode(self._simply_on(target, request))
        decider = self._farebox.intake.decider(principal.organization_id)
        outcome = (await decider.decide((Asked(target.pool.pool_id, command),)))[0]
        if isinstance(outcome, Refusal):
            return await self._refused(principal, request, target.name, target.pool, outcome)
        return _one(target.name, target.pool.pool_id, outcome)

    def _simply_on(self, target: Target, request: AuthorizeRequest) -> Granted:
        """Say yes to a feature that is not counted: nothing moves."""
        return Granted(
            id=None,
            pool=target.name,
            amount=request.amount,
            covered=request.amount,
            beyond={},
            available=request.amount,
            over_limit=False,
            time=self._farebox.clock(),
        )

    async def _refused(
        self,
        principal: Principal,
        request: AuthorizeRequest,
        name: str,
        pool: PoolKey | None,
        refusal: Refusal,
    ) -> Sent:
        feature = request.feature if pool is None else pool.feature
        pool_id = None if pool is None else pool.pool_id
        found: list[Cover] = []
        if refusal.code in _COVERED:
            found = await self._finder.covers(principal, feature, request.amount, pool_id)
        return _one(name, pool_id, refusal, found)

    async def _batch(self, principal: Principal, body: bytes) -> Sent:
        requests = read_body(body, BatchRequest).requests
        if not 1 <= len(requests) <= BATCH_MAX:
            detail = f"a batch has 1 to {BATCH_MAX} requests"
            raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/requests")
        answers: list[Granted | DecisionProblem | None] = [None] * len(requests)
        asked: list[Asked] = []
        places: list[tuple[int, Target]] = []
        for place, request in enumerate(requests):
            try:
                command = command_of(request, None)
                target = await self._finder.target(principal, request)
            except Refused as error:
                answers[place] = _as_decision(request.pool or "", error.problem)
                continue
            if isinstance(target, Refusal):
                answers[place] = decision_problem(request.pool or "", target)
            elif target.pool is None:
                answers[place] = self._simply_on(target, request)
            else:
                asked.append(Asked(target.pool.pool_id, command))
                places.append((place, target))
        decider = self._farebox.intake.decider(principal.organization_id)
        outcomes = await decider.decide(asked) if asked else []
        for (place, target), one, outcome in zip(places, asked, outcomes, strict=True):
            answers[place] = answer_of(target.name, one.pool_id, outcome)
        granted = sum(isinstance(one, Granted) for one in answers)
        shown = [
            Decision(one, None) if isinstance(one, Granted) else Decision(None, one)
            for one in answers
        ]
        decisions = BatchDecisions(granted, len(answers) - granted, shown)
        return 200, JSON, _ENCODER.encode(decisions)

    async def _hold(self, principal: Principal, path: str, body: bytes, key: str | None) -> Sent:
        wire, _, verb = path.removeprefix(HOLDS).partition("/")
        found = decode_numbered(Prefix.HOLD, wire)
        if found is None or verb not in _VERBS:
            raise refused(HttpCode.NOT_FOUND, "there is nothing at this path")
        pool_id, number = found
        command = hold_command(verb, number, body, key)
        pool = await self._finder.pool(principal, pool_id)
        if isinstance(pool, Refusal):
            return _one("", None, Refusal(RefusalCode.HOLD_UNKNOWN, "there is no hold of this id"))
        decider = self._farebox.intake.decider(principal.organization_id)
        outcome = (await decider.decide((Asked(pool_id, command),)))[0]
        return _one(pool.key, pool_id, outcome)


_VERBS = frozenset({"settle", "extend", "release"})


def is_hold_verb(path: str) -> bool:
    """Whether a path is that of a verb of a hold."""
    return path.startswith(HOLDS) and path.rpartition("/")[2] in _VERBS


def _header_key(headers: Headers) -> str | None:
    value = headers.get(b"idempotency-key")
    return None if value is None else value.decode("latin-1")


def _as_decision(pool: str, problem: ProblemDetails) -> DecisionProblem:
    values = {name: getattr(problem, name) for name in ProblemDetails.__struct_fields__}
    return DecisionProblem(**values, pool=pool)


def _one(pool: str, pool_id: UUID | None, outcome: Outcome, found: Sequence[Cover] = ()) -> Sent:
    answer = answer_of(pool, pool_id, outcome, found)
    if isinstance(answer, Granted):
        return 200, JSON, _ENCODER.encode(answer)
    return answer.status, _PROBLEM, _ENCODER.encode(answer)
