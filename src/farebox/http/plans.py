"""Plans: what a subscription is charged."""

from farebox.http.definition import definition_router
from farebox.http.operation import Example
from farebox.postgres.catalog import Kind

routes = definition_router(
    Kind.PLAN,
    {
        "put": [
            Example(
                path="/v1/plans/team?publish=true",
                body={
                    "name": "Team",
                    "currency": "USD",
                    "fees": [{"key": "base", "amount": "20"}],
                    "charges": [{"key": "tokens", "meter": "llm_tokens"}],
                },
            ),
            Example(
                path="/v1/plans/enterprise",
                body={"name": "Enterprise", "currency": "USD", "minimum": "5000"},
            ),
        ],
        "publish": [Example(path="/v1/plans/enterprise/publish", body={})],
        "list": [Example(path="/v1/plans?limit=1")],
        "get": [Example(path="/v1/plans/team")],
        "version": [Example(path="/v1/plans/team/versions/1")],
    },
)
