"""The term of the license that a pool is of: whether units may be taken at an instant."""

from datetime import datetime

from msgspec import Struct

from farebox.ledger.refusal import Refusal, RefusalCode


class LicenseTerm(Struct, frozen=True):
    """From when (inclusive) to when (exclusive; none: for ever) a license is in force."""

    key: str
    starts_at: datetime
    ends_at: datetime | None = None
    revoked_at: datetime | None = None


def not_in_force(term: LicenseTerm, time: datetime) -> Refusal | None:
    """Return why nothing is given under a license at `time`.

    One that was revoked is so for every clock, whichever went ahead.
    """
    if term.revoked_at is not None:
        detail = f"license {term.key!r} was revoked at {term.revoked_at.isoformat()}"
        return Refusal(RefusalCode.LICENSE_REVOKED, detail)
    if time < term.starts_at:
        detail = f"license {term.key!r} begins at {term.starts_at.isoformat()}"
        begins = term.starts_at
        return Refusal(RefusalCode.LICENSE_NOT_BEGUN, detail, refills_at=begins, enough_at=begins)
    if term.ends_at is not None and time >= term.ends_at:
        detail = f"license {term.key!r} ended at {term.ends_at.isoformat()}"
        return Refusal(RefusalCode.LICENSE_OVER, detail)
    return None
