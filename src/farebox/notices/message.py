"""A notice on the wire, by Standard Webhooks: its body, and the headers that prove who sent it.

https://www.standardwebhooks.com
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from standardwebhooks import Webhook

SECRET_BYTES = 32
_PREFIX = "whsec_"


def make_secret(random: bytes) -> str:
    """Return a new signing secret as receivers enter it; takes 32 random bytes."""
    assert len(random) == SECRET_BYTES, len(random)
    return _PREFIX + b64encode(random).decode()


def message_body(notice_type: str, time: datetime, data: str) -> bytes:
    """Return the body; `data` is JSON text and stays as it is, so every attempt has the same bytes.

    time: when it happened, which is not when it is sent.
    """
    head = msgspec.json.encode({"type": notice_type, "timestamp": time.astimezone(UTC)})
    return head[:-1] + b',"data":' + data.encode() + b"}"


def message_headers(
    message_id: str, body: bytes, secrets: Sequence[str], now: datetime
) -> Mapping[str, str]:
    """Return the headers of an attempt at `now`, with a signature by each of the secrets.

    message_id: the same in every attempt; a receiver tells repeats by it.
    """
    text = body.decode()
    # The library takes the clock's figures for UTC, whatever zone they are in.
    sent_at = now.astimezone(UTC)
    signatures = [Webhook(secret).sign(message_id, sent_at, text) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
