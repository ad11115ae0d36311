"""The one registry of every code that the API answers with, and the status that goes with each.

The nouns name their own refusals; what only HTTP can refuse is named here. `docs/problems.md` has
a heading for every code of this registry.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from farebox.access.key import KeyRefusal
from farebox.alerts.rule_check import AlertCode
from farebox.catalog.code import CatalogCode
from farebox.catalog.meter_check import MeterCode
from farebox.catalog.price_check import PriceCode
from farebox.events.refusal import EventCode, RequestCode
from farebox.flows.answer_once import IdempotencyCode
from farebox.flows.backfill_meter import BackfillCode
from farebox.flows.edit_draft import EditCode
from farebox.flows.move_subject import MoveCode
from farebox.flows.preview_invoice import PreviewCode
from farebox.flows.put_customer import SubjectCode
from farebox.flows.put_license import LicenseCode
from farebox.flows.put_subscription import SubscriptionCode
from farebox.flows.query_usage import UsageCode
from farebox.flows.use_priced import UseCode
from farebox.flows.watch_sources import ControlCode
from farebox.flows.webhook_endpoint import WebhookCode
from farebox.ledger.pool_check import PoolCode
from farebox.ledger.refusal import RefusalCode
from farebox.metering.reading import ReadingCode


class HttpCode(StrEnum):
    """What goes wrong before or around what was asked for."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_CUT_SHORT = "body_cut_short"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    ENCODING_INVALID = "encoding_invalid"
    PARAMETER_INVALID = "parameter_invalid"
    CURSOR_INVALID = "cursor_invalid"
    KEY_MISMATCH = "key_mismatch"
    CUSTOMER_KEY_REFUSED = "customer_key_refused"
    IDEMPOTENCY_KEY_INVALID = "idempotency_key_invalid"
    EVENT_CONFLICT = "event_conflict"
    OVERLOADED = "overloaded"
    DATABASE_UNAVAILABLE = "database_unavailable"
    CLOCK_JUMPED = "clock_jumped"
    INTERNAL = "internal"


ENUMS: tuple[type[StrEnum], ...] = (
    HttpCode,
    KeyRefusal,
    RequestCode,
    EventCode,
    ReadingCode,
    CatalogCode,
    MeterCode,
    PriceCode,
    EditCode,
    SubjectCode,
    MoveCode,
    SubscriptionCode,
    LicenseCode,
    IdempotencyCode,
    UsageCode,
    PreviewCode,
    ControlCode,
    BackfillCode,
    RefusalCode,
    PoolCode,
    UseCode,
    WebhookCode,
    AlertCode,
)
"""Every enum whose members may stand in an answer; a flow's own refusals join here."""

_STATUS: Mapping[str, int] = {
    HttpCode.NOT_FOUND: 404,
    HttpCode.METHOD_NOT_ALLOWED: 405,
    HttpCode.BODY_CUT_SHORT: 400,
    HttpCode.UNSUPPORTED_ENCODING: 415,
    HttpCode.ENCODING_INVALID: 400,
    HttpCode.PARAMETER_INVALID: 400,
    HttpCode.CURSOR_INVALID: 400,
    HttpCode.CUSTOMER_KEY_REFUSED: 403,
    EditCode.PRECONDITION_FAILED: 412,
    HttpCode.IDEMPOTENCY_KEY_INVALID: 400,
    HttpCode.EVENT_CONFLICT: 409,
    HttpCode.OVERLOADED: 429,
    HttpCode.DATABASE_UNAVAILABLE: 503,
    HttpCode.CLOCK_JUMPED: 503,
    HttpCode.INTERNAL: 500,
    EditCode.NO_SUCH_DEFINITION: 404,
    MoveCode.NO_SUCH_SUBJECT: 404,
    MoveCode.PERIOD_FINAL: 409,
    MoveCode.USAGE_BURNED: 409,
    BackfillCode.METER_VERSION_UNKNOWN: 404,
    BackfillCode.ALREADY_BACKFILLED: 409,
    BackfillCode.METER_VERSION_REPLACED: 409,
    WebhookCode.ENDPOINT_DISABLED: 409,
    WebhookCode.DELIVERY_UNDER_WAY: 409,
    PreviewCode.UNKNOWN_SUBSCRIPTION: 404,
    PreviewCode.SUBSCRIPTION_NOT_STARTED: 409,
    SubjectCode.SUBJECT_TAKEN: 409,
    SubscriptionCode.SUBSCRIPTION_FIXED: 409,
    SubscriptionCode.SUBSCRIPTION_ENDED: 409,
    KeyRefusal.KEY_MISSING: 401,
    KeyRefusal.KEY_MALFORMED: 401,
    KeyRefusal.KEY_UNKNOWN: 401,
    KeyRefusal.KEY_REVOKED: 401,
    KeyRefusal.SCOPE_MISSING: 403,
    RequestCode.BODY_TOO_LARGE: 413,
    RequestCode.UNSUPPORTED_MEDIA_TYPE: 415,
    RequestCode.NOT_UTF8: 400,
    RequestCode.MALFORMED_JSON: 400,
    RequestCode.BATCH_TOO_LARGE: 413,
    RefusalCode.POOL_UNKNOWN: 404,
    RefusalCode.LICENSE_UNKNOWN: 404,
    RefusalCode.LICENSE_REVOKED: 409,
    RefusalCode.LICENSE_NOT_BEGUN: 409,
    RefusalCode.LICENSE_OVER: 409,
    LicenseCode.LICENSE_FIXED: 409,
    RefusalCode.FEATURE_NOT_ENTITLED: 403,
    RefusalCode.CLOCK_WENT_BACK: 503,
    RefusalCode.POOL_CLOSED: 409,
    RefusalCode.SUBJECT_NOT_SERVED: 403,
    RefusalCode.HOLD_UNKNOWN: 404,
    RefusalCode.HOLD_SETTLED: 409,
    RefusalCode.HOLD_RELEASED: 409,
    RefusalCode.HOLD_EXPIRED: 409,
    RefusalCode.DRAW_UNKNOWN: 404,
    RefusalCode.DRAW_REVERSED: 409,
    RefusalCode.REVERSAL_TOO_LATE: 409,
    RefusalCode.GRANT_UNKNOWN: 404,
    RefusalCode.GRANT_KEY_REUSED: 409,
    RefusalCode.GRANT_NOT_PENDING: 409,
    RefusalCode.GRANT_REFILLS: 409,
    RefusalCode.GRANT_CLOSED: 409,
    RefusalCode.ALLOTMENT_UNKNOWN: 404,
    RefusalCode.ALLOTMENT_MISSING: 403,
    RefusalCode.ALLOTMENT_NOT_IN_FORCE: 403,
    RefusalCode.ALLOTMENT_CAP_EXCEEDED: 402,
    RefusalCode.RATE_LIMITED: 429,
    RefusalCode.GUARANTEE_RESERVED: 402,
    RefusalCode.INSUFFICIENT_BALANCE: 402,
    RefusalCode.OVERDRAFT_EXCEEDED: 402,
    RefusalCode.OVERAGE_LIMIT_EXCEEDED: 402,
    RefusalCode.SPEND_CAP_EXCEEDED: 402,
}


def status_of(code: str) -> int:
    """Return the HTTP status of a code; what is not said otherwise is a 422."""
    return _STATUS.get(code, 422)


def all_codes(enums: Iterable[type[StrEnum]] = ENUMS) -> list[str]:
    """Return every code once; nouns that mean the same share a code."""
    return list(dict.fromkeys(code.value for enum in enums for code in enum))
