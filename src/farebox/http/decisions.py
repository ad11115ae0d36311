"""POST /v1/authorize and what follows it, the live path: may I, and the units in the same step.

It stands before the framework's router, as the intake of events does.
"""

import msgspec
from litestar.concurrency import sync_to_thread
from litestar.types import HTTPScope, Receive, Send
from psycopg import Connection

from farebox.access.id import Prefix, decode_numbered
from farebox.access.key import Scope as KeyScope
from farebox.catalog.cover import Cover
from farebox.catalog.plain_json import encode
from farebox.flows.answer_once import Reply, answer_once
from farebox.flows.decide_pools import Asked, decide_locked
from farebox.http.authenticate import KeyMemory, Principal
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.cover_memory import Use
from farebox.http.decision import (
    AuthorizeRequest,
    BatchDecisions,
    BatchRequest,
    Decision,
    DecisionProblem,
    Granted,
    command_of,
    decision_problem,
    for_customer,
    granted,
    hold_command,
    read_request,
    refused_by,
)
from farebox.http.pool_finder import PoolFinder, Target
from farebox.http.problem import MEDIA_TYPE, ProblemDetails, Refused, refused
from farebox.http.receive import JSON, Headers, principal_of, receive_body, send_content
from farebox.http.state import State
from farebox.ledger.command import Answer, Extend
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.pool import PoolKey

AUTHORIZE = "/v1/authorize"
BATCH = "/v1/authorize/batch"
HOLDS = "/v1/holds/"
BATCH_MAX = 500
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
            if key is not None:
                detail = "each request of a batch has a key of its own, in the body"
                raise refused(HttpCode.IDEMPOTENCY_KEY_INVALID, detail)
            status, kind, content = await self._batch(principal, body)
        else:
            status, kind, content = await self._hold(principal, path, body, key)
        await send_content(send, status, kind, content)

    async def _authorize(self, principal: Principal, body: bytes, key: str | None) -> Sent:
        request = read_request(body)
        command = command_of(request, key)
        target = await self._finder.target(principal, request)
        if isinstance(target, Refusal):
            return _sent(await self._refused(principal, request, None, target))
        if target.pool is None:
            return _sent(self._simply_on(target, request))
        command = for_customer(command, request, target.pool)
        decider = self._farebox.intake.decider(principal.organization_id)
        outcome = (await decider.decide((Asked(target.pool.pool_id, command),)))[0]
        if isinstance(outcome, Refusal):
            return _sent(await self._refused(principal, request, target.pool, outcome))
        return _sent(granted(target.name, target.pool.pool_id, outcome))

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
        pool: PoolKey | None,
        refusal: Refusal,
    ) -> DecisionProblem:
        use = Use(
            feature=request.feature if pool is None else pool.feature,
            customer=request.customer or principal.customer_key if pool is None else pool.customer,
            subject=request.subject,
            allotment=request.allotment,
            amount=request.amount,
        )
        pool_id = None if pool is None else pool.pool_id
        found = await self._finder.covers(principal, refusal, use, pool_id)
        name = request.pool or "" if pool is None else pool.key
        return decision_problem(name, refusal, found)

    async def _batch(self, principal: Principal, body: bytes) -> Sent:
        requests = read_body(body, BatchRequest).requests
        if not 1 <= len(requests) <= BATCH_MAX:
            detail = f"a batch has 1 to {BATCH_MAX} requests"
            raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/requests")
        answers: list[Granted | DecisionProblem | None] = [None] * len(requests)
        asked: list[Asked] = []
        places: list[tuple[int, PoolKey]] = []
        for place, request in enumerate(requests):
            try:
                command = command_of(request, None)
                target = await self._finder.target(principal, request)
            except Refused as error:
                answers[place] = _as_decision(request.pool or "", error.problem)
                continue
            if isinstance(target, Refusal):
                answers[place] = await self._refused(principal, request, None, target)
            elif target.pool is None:
                answers[place] = self._simply_on(target, request)
            else:
                command = for_customer(command, request, target.pool)
                asked.append(Asked(target.pool.pool_id, command))
                places.append((place, target.pool))
        decider = self._farebox.intake.decider(principal.organization_id)
        outcomes = await decider.decide(asked) if asked else []
        for (place, pool), outcome in zip(places, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                request = requests[place]
                answers[place] = await self._refused(principal, request, pool, outcome)
            else:
                answers[place] = granted(pool.key, pool.pool_id, outcome)
        yes = sum(isinstance(one, Granted) for one in answers)
        shown = [
            Decision(one, None) if isinstance(one, Granted) else Decision(None, one)
            for one in answers
        ]
        decisions = BatchDecisions(yes, len(answers) - yes, shown)
        return 200, JSON, encode(decisions)

    async def _hold(self, principal: Principal, path: str, body: bytes, key: str | None) -> Sent:
        wire, _, verb = path.removeprefix(HOLDS).partition("/")
        if verb not in _VERBS:
            raise refused(HttpCode.NOT_FOUND, "there is nothing at this path")
        unknown = Refusal(RefusalCode.HOLD_UNKNOWN, "there is no hold of this id")
        found = decode_numbered(Prefix.HOLD, wire)
        if found is None:
            return _sent(decision_problem("", unknown))
        pool_id, number = found
        command = hold_command(verb, number, body, key)
        pool = await self._finder.pool(principal, pool_id)
        if isinstance(pool, Refusal):
            return _sent(decision_problem("", unknown))
        if isinstance(command, Extend) and command.key is not None and not command.amount:
            once = sync_to_thread(self._extend_once, principal, pool, command, command.key)
            return 200, JSON, await once
        decider = self._farebox.intake.decider(principal.organization_id)
        outcome = (await decider.decide((Asked(pool_id, command),)))[0]
        if isinstance(outcome, Answer):
            return _sent(granted(pool.key, pool_id, outcome))
        covers: list[Cover] = []
        if isinstance(command, Extend):  # of what is done to a hold this alone may want more units
            covers = await self._covers_of_hold(principal, pool, command, outcome)
        return _sent(decision_problem(pool.key, outcome, covers))

    def _extend_once(self, principal: Principal, pool: PoolKey, command: Extend, key: str) -> bytes:
        """Let a hold last longer, and keep the answer: no entry of the ledger carries the key."""
        organization_id = principal.organization_id

        def act(connection: Connection) -> Reply | Refused:
            asked = [Asked(pool.pool_id, command)]
            now = self._farebox.clock()
            (outcome,), _ = decide_locked(connection, organization_id, asked, now)
            if isinstance(outcome, Refusal):
                return refused_by(pool.key, outcome)
            answer = granted(pool.key, pool.pool_id, outcome)
            again = msgspec.structs.replace(answer, repeated=True)
            return Reply(200, encode(answer), encode(again))

        # A key counts within its pool; with a space it is not that of any other request.
        kept, digest = f"{pool.pool_id} {key}", (command.digest or "").encode()
        now = self._farebox.clock()
        reply = answer_once(self._farebox.pool, organization_id, kept, digest, now, act)
        if isinstance(reply, Reply):
            return reply.body
        detail = f"the key {key!r} was used for another request; take a new one"
        raise refused_by(pool.key, Refusal(RefusalCode.IDEMPOTENCY_KEY_REUSED, detail))

    async def _covers_of_hold(
        self, principal: Principal, pool: PoolKey, command: Extend, refusal: Refusal
    ) -> list[Cover]:
        book = self._farebox.intake.decider(principal.organization_id).book(pool.pool_id)
        hold = None if book is None else book.find_hold(command.hold)
        use = Use(
            feature=pool.feature,
            customer=pool.customer,
            subject=None if hold is None else hold.subject,
            allotment=None if hold is None else hold.allotment,
            amount=command.amount,
        )
        return await self._finder.covers(principal, refusal, use, pool.pool_id)


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


def _sent(answer: Granted | DecisionProblem) -> Sent:
    content = encode(answer)
    if isinstance(answer, Granted):
        return 200, JSON, content
    return answer.status, _PROBLEM, content
