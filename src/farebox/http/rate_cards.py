"""Rate cards: prices by meter, in versions that take effect at an instant."""

from farebox.http.definition import definition_router
from farebox.http.operation import Example
from farebox.postgres.catalog import Kind

routes = definition_router(
    Kind.RATE_CARD,
    {
        "put": [
            Example(
                path="/v1/rate_cards/list?publish=true",
                body={
                    "currency": "USD",
                    "default": True,
                    "rates": [
                        {
                            "meter": "llm_tokens",
                            "price": {
                                "model": "matrix",
                                "dimensions": ["model", "token_kind"],
                                "per": "1000000",
                                "cells": [
                                    {
                                        "match": {"model": "gpt-4o", "token_kind": "input"},
                                        "unit": "2.50",
                                    },
                                    {
                                        "match": {"model": "gpt-4o", "token_kind": "output"},
                                        "unit": "10.00",
                                    },
                                ],
                            },
                        }
                    ],
                },
            ),
            Example(
                path="/v1/rate_cards/partners",
                body={"currency": "USD", "rates": []},
            ),
        ],
        "publish": [
            Example(
                path="/v1/rate_cards/partners/publish",
                body={"effective_from": "2026-10-01T00:00:00Z"},
            )
        ],
        "list": [Example(path="/v1/rate_cards")],
        "get": [Example(path="/v1/rate_cards/list")],
        "version": [Example(path="/v1/rate_cards/list/versions/1")],
    },
)
