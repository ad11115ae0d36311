"""Partners: resellers whose customers share a rate card."""

from farebox.http.definition import definition_router
from farebox.http.operation import Example
from farebox.postgres.catalog import Kind

routes = definition_router(
    Kind.PARTNER,
    {
        "put": [
            Example(
                path="/v1/partners/globex?publish=true",
                body={"name": "Globex", "rate_card": "partners"},
            )
        ],
        "publish": [Example(path="/v1/partners/globex/publish", body={})],
        "list": [Example(path="/v1/partners")],
        "get": [Example(path="/v1/partners/globex")],
        "version": [Example(path="/v1/partners/globex/versions/1")],
    },
)
