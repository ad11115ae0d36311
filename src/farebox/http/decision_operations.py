"""What the API's description says of the live path: authorize, and the verbs of a hold."""

from farebox.http.code import HttpCode
from farebox.http.decision import (
    AuthorizeRequest,
    BatchDecisions,
    BatchRequest,
    ExtendRequest,
    Granted,
    ReleaseRequest,
    SettleRequest,
)
from farebox.http.operation import Example, Operation
from farebox.ledger.refusal import RefusalCode

_ALWAYS = [RefusalCode.CLOCK_WENT_BACK, HttpCode.OVERLOADED]
_TAKING = [
    RefusalCode.POOL_CLOSED,
    RefusalCode.LICENSE_REVOKED,
    RefusalCode.LICENSE_NOT_BEGUN,
    RefusalCode.LICENSE_OVER,
    RefusalCode.ALLOTMENT_UNKNOWN,
    RefusalCode.ALLOTMENT_MISSING,
    RefusalCode.ALLOTMENT_NOT_IN_FORCE,
    RefusalCode.ALLOTMENT_CAP_EXCEEDED,
    RefusalCode.RATE_LIMITED,
    RefusalCode.GUARANTEE_RESERVED,
    RefusalCode.INSUFFICIENT_BALANCE,
    RefusalCode.OVERDRAFT_EXCEEDED,
    RefusalCode.OVERAGE_LIMIT_EXCEEDED,
    RefusalCode.SPEND_CAP_EXCEEDED,
]
_ENDED = [
    RefusalCode.HOLD_UNKNOWN,
    RefusalCode.HOLD_SETTLED,
    RefusalCode.HOLD_RELEASED,
    RefusalCode.HOLD_EXPIRED,
]
_NO_HOLD = "/v1/holds/hld_01jbsqz4e2e0rv8h9yj0fn5c7k_9"

OPERATIONS = (
    (
        "/v1/authorize",
        "authorize",
        Operation(
            summary="May I? Take units, or hold them, in the same step",
            request=AuthorizeRequest,
            answer=Granted,
            codes=[
                RefusalCode.POOL_UNKNOWN,
                RefusalCode.LICENSE_UNKNOWN,
                RefusalCode.LICENSE_POOL_AMBIGUOUS,
                RefusalCode.AMOUNT_INVALID,
                RefusalCode.UNIT_MISMATCH,
                RefusalCode.IDEMPOTENCY_KEY_REUSED,
                RefusalCode.SUBJECT_NOT_SERVED,
                RefusalCode.HOLD_TOO_LONG,
                *_TAKING,
                *_ALWAYS,
            ],
            description=(
                "A yes is durable when it is answered. A no is a problem with its code, what is"
                " `left`, and when more comes (`refills_at`); nothing moved. What a pool refused is"
                " listed (`GET /v1/refusals`). Sent again under the same key, a request moves units"
                " once. With `hold` the units are set aside, to be settled, extended or released."
            ),
            examples=[
                Example(
                    path="/v1/authorize",
                    body={
                        "pool": "acme-tokens",
                        "amount": "120",
                        "subject": "acme-dev",
                        "key": "call-1",
                    },
                    answer={
                        "granted": True,
                        "id": "drw_01jbsqz4e2e0rv8h9yj0fn5c7k_3",
                        "pool": "acme-tokens",
                        "amount": "120",
                        "covered": "120",
                        "beyond": {},
                        "available": "100680",
                        "over_limit": False,
                        "time": "2026-10-01T00:00:00Z",
                        "hold": None,
                        "expires_at": None,
                        "repeated": False,
                    },
                ),
                Example(
                    path="/v1/authorize",
                    body={"pool": "acme-tokens", "amount": "9000000", "subject": "acme-dev"},
                    status=402,
                ),
                Example(
                    path="/v1/authorize",
                    body={"license": "ACME-7F3K-22QX", "feature": "chat", "amount": "1"},
                ),
                Example(
                    path="/v1/authorize",
                    body={
                        "pool": "acme-tokens",
                        "amount": "500",
                        "allotment": "vision",
                        "hold": {"seconds": 60},
                    },
                ),
            ],
        ),
    ),
    (
        "/v1/authorize/batch",
        "authorize_batch",
        Operation(
            summary="Ask for several decisions at once, each by itself",
            request=BatchRequest,
            answer=BatchDecisions,
            codes=[HttpCode.PARAMETER_INVALID, *_ALWAYS],
            description="Up to 500; each answer is what `POST /v1/authorize` would have given.",
            examples=[
                Example(
                    path="/v1/authorize/batch",
                    body={
                        "requests": [
                            {"pool": "acme-tokens", "amount": "1"},
                            {"pool": "nowhere", "amount": "1"},
                        ]
                    },
                )
            ],
        ),
    ),
    (
        "/v1/holds/{hold}/settle",
        "settle_hold",
        Operation(
            summary="Settle a hold for what was really used",
            request=SettleRequest,
            answer=Granted,
            codes=[*_ENDED, RefusalCode.AMOUNT_INVALID, *_ALWAYS],
            description=(
                "Less than was held: the rest goes back. More: the rest is drawn as the pool's"
                " limit allows, and beyond every limit as overage, flagged; use is never lost."
            ),
            examples=[Example(path=f"{_NO_HOLD}/settle", body={"amount": "7"}, status=404)],
        ),
    ),
    (
        "/v1/holds/{hold}/extend",
        "extend_hold",
        Operation(
            summary="Let a hold last longer, and hold more",
            request=ExtendRequest,
            answer=Granted,
            codes=[*_ENDED, RefusalCode.HOLD_TOO_LONG, *_TAKING, *_ALWAYS],
            description=(
                "`seconds` count from now, and never end a hold earlier than before; without them"
                " it ends when it would have."
            ),
            examples=[Example(path=f"{_NO_HOLD}/extend", body={"seconds": 60}, status=404)],
        ),
    ),
    (
        "/v1/holds/{hold}/release",
        "release_hold",
        Operation(
            summary="Give back what is held",
            request=ReleaseRequest,
            answer=Granted,
            codes=[*_ENDED, *_ALWAYS],
            examples=[Example(path=f"{_NO_HOLD}/release", body={}, status=404)],
        ),
    ),
)
"""The hot paths of decisions: path, name and description."""
