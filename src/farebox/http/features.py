"""Features: what a customer may use."""

from farebox.http.definition import definition_router
from farebox.http.operation import Example
from farebox.postgres.catalog import Kind

_CHAT = {
    "name": "Chat",
    "meter": "llm_tokens",
    "top_ups": [{"units": "1000", "price": "8", "currency": "USD"}],
}

routes = definition_router(
    Kind.FEATURE,
    {
        "put": [
            Example(
                path="/v1/features/chat?publish=true",
                body=_CHAT,
            ),
            Example(
                path="/v1/features/chat?publish=true",
                body=_CHAT,
                answer={
                    "key": "chat",
                    "changed": False,
                    "draft": None,
                    "newest": {
                        "version": 1,
                        "effective_from": None,
                        "published_at": "2026-10-01T00:00:00Z",
                        "definition": {
                            "key": "chat",
                            "name": "Chat",
                            "meter": "llm_tokens",
                            "unit": "use",
                            "top_ups": _CHAT["top_ups"],
                            "metadata": {},
                        },
                    },
                },
            ),
        ],
        "publish": [
            Example(
                path="/v1/features/video/publish",
                body={},
                status=404,
                answer={
                    "type": "/docs/problems#no_such_definition",
                    "title": "No such definition",
                    "status": 404,
                    "detail": "there is no feature 'video'",
                    "code": "no_such_definition",
                    "errors": [
                        {
                            "code": "no_such_definition",
                            "pointer": "",
                            "message": "there is no feature 'video'",
                        }
                    ],
                },
            )
        ],
        "list": [Example(path="/v1/features")],
        "get": [Example(path="/v1/features/chat")],
        "version": [Example(path="/v1/features/chat/versions/1")],
    },
)
