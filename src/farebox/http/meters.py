"""Meters: which events count and what is read from them."""

from farebox.http.definition import definition_router
from farebox.http.operation import Example
from farebox.postgres.catalog import Kind

_TIME = "2026-10-01T00:00:00Z"
_DRAFT = {
    "event_type": "llm.request",
    "aggregation": "sum",
    "spread": {
        "dimension": "token_kind",
        "values": {"input": "$.input_tokens", "output": "$.output_tokens"},
    },
    "dimensions": {"model": "$.model"},
}
_METER = {
    "key": "llm_tokens",
    "name": "",
    "event_type": "llm.request",
    "aggregation": "sum",
    "value": None,
    "spread": _DRAFT["spread"],
    "dimensions": {"model": "$.model"},
    "filter": "",
    "subject": None,
    "customer": None,
    "unit": "",
    "conversion": None,
    "counter": None,
    "percentile": None,
    "weight_seconds": 3600,
    "per_event": False,
    "metadata": {},
}
_VERSION = {"version": 1, "effective_from": None, "published_at": _TIME, "definition": _METER}
_CALLS = {"key": "llm_calls", "event_type": "llm.request", "aggregation": "count"}

routes = definition_router(
    Kind.METER,
    {
        "put": [
            Example(
                path="/v1/meters/llm_tokens",
                body=_DRAFT,
                answer={"key": "llm_tokens", "changed": True, "draft": _METER, "newest": None},
            ),
            Example(path="/v1/meters/llm_calls?publish=true", body=_CALLS),
            Example(
                path="/v1/meters/broken",
                body={"event_type": "llm.request", "aggregation": "sum"},
                status=422,
                answer={
                    "type": "/docs/problems#value_required",
                    "title": "Value required",
                    "status": 422,
                    "detail": "sum needs a value",
                    "code": "value_required",
                    "errors": [
                        {
                            "code": "value_required",
                            "pointer": "/value",
                            "message": "sum needs a value",
                        }
                    ],
                },
            ),
        ],
        "publish": [
            Example(
                path="/v1/meters/llm_tokens/publish",
                body={},
                answer={"key": "llm_tokens", "changed": True, "draft": None, "newest": _VERSION},
            )
        ],
        "list": [Example(path="/v1/meters?limit=10")],
        "get": [
            Example(
                path="/v1/meters/llm_tokens",
                answer={
                    "key": "llm_tokens",
                    "draft": None,
                    "current": _VERSION,
                    "versions": [{"version": 1, "effective_from": None, "published_at": _TIME}],
                },
            )
        ],
        "version": [Example(path="/v1/meters/llm_tokens/versions/1", answer=_VERSION)],
    },
)
