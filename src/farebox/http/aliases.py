"""Aliases: other names of a dimension's value, under `dimension:alias`."""

from farebox.http.definition import definition_router
from farebox.http.operation import Example
from farebox.postgres.catalog import Kind

routes = definition_router(
    Kind.ALIAS,
    {
        "put": [
            Example(
                path="/v1/aliases/model:gpt-4o-2024-11-20?publish=true",
                body={"canonical": "gpt-4o"},
            )
        ],
        "publish": [
            Example(
                path="/v1/aliases/model:gpt-4o-2024-11-20/publish",
                body={},
                answer={
                    "key": "model:gpt-4o-2024-11-20",
                    "changed": False,
                    "draft": None,
                    "newest": {
                        "version": 1,
                        "effective_from": None,
                        "published_at": "2026-10-01T00:00:00Z",
                        "definition": {
                            "dimension": "model",
                            "alias": "gpt-4o-2024-11-20",
                            "canonical": "gpt-4o",
                        },
                    },
                },
            )
        ],
        "list": [Example(path="/v1/aliases")],
        "get": [Example(path="/v1/aliases/model:gpt-4o-2024-11-20")],
        "version": [Example(path="/v1/aliases/model:gpt-4o-2024-11-20/versions/1")],
    },
)
