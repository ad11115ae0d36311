"""The API's reference: its description as JSON, as a page to read, and what every code means."""

import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, Router, get

from farebox.http.openapi import describe_api
from farebox.http.state import State

_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "public, max-age=300",
}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color-scheme:light dark}code,pre{font:14px/1.5 ui-monospace,monospace}
pre{overflow:auto;padding:.75rem;border:1px solid #8884;border-radius:6px}
summary{cursor:pointer}h2{margin-top:2.5rem}h3 code:first-child{text-transform:uppercase}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;
vertical-align:top}
"""


@get("/openapi.json", sync_to_thread=False)
def openapi_json(farebox: State, request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the OpenAPI 3.1 description."""
    document = describe_api(request.app, farebox.settings.version)
    headers = {"Cache-Control": "public, max-age=300"}
    return Response(msgspec.json.encode(document), media_type=MediaType.JSON, headers=headers)


@get("/docs", sync_to_thread=False)
def reference_page(farebox: State, request: Request[Any, Any, Any]) -> Response[str]:
    """Return the description as a page; it loads nothing from anywhere."""
    document = describe_api(request.app, farebox.settings.version)
    parts = [
        "<p>Send an API key as <code>Authorization: Bearer fbx_...</code>. The same as JSON: "
        "<a href=/openapi.json>openapi.json</a>. "
        "What every refusal means: <a href=/docs/problems>problems</a>.</p>"
    ]
    tag = None
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"] != tag:
                tag = operation["tags"]
                parts.append(f"<h2>{escape(', '.join(tag))}</h2>")
            parts.append(_operation(path, method, operation))
    return _page("Farebox API", "".join(parts))


@get("/docs/problems", sync_to_thread=False)
def problems_page() -> Response[str]:
    """Return what every code means."""
    return _page("Problems", _html(problems_text()))


@cache
def problems_text() -> str:
    """Return the meaning of every code, as Markdown."""
    return (files("farebox.http") / "problems.md").read_text()


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f"<h3 id={escape(operation['operationId'])}><code>{method}</code> "
        f"<code>{escape(path)}</code></h3><p>{escape(operation['summary'])}. "
        f"{_inline(operation.get('description', ''))}</p>"
    ]
    parameters = operation.get("parameters", ())
    if parameters:
        rows = "".join(
            f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}"
            f"<td>{escape(one.get('description', ''))}"
            for one in parameters
        )
        parts.append(f"<table>{rows}</table>")
    for content in operation.get("requestBody", {}).get("content", {}).values():
        parts += _examples("Send", content)
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            parts += _examples(f"Answer {status}", content)
    return "".join(parts)


def _examples(title: str, content: dict[str, Any]) -> list[str]:
    return [
        f"<details><summary>{title}</summary><pre>{escape(_shown(one['value']))}</pre></details>"
        for one in content.get("examples", {}).values()
    ]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _html(markdown: str) -> str:
    """Return the little of Markdown that the problems are written in, as HTML."""
    parts: list[str] = []
    for block in markdown.strip().split("\n\n"):
        if block.startswith("### "):
            code = block.removeprefix("### ").strip("`")
            parts.append(f"<h3 id={escape(code)}><code>{escape(code)}</code></h3>")
        elif block.startswith("## "):
            parts.append(f"<h2>{escape(block.removeprefix('## '))}</h2>")
        elif not block.startswith("# "):
            parts.append(f"<p>{_inline(block)}</p>")
    return "".join(parts)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _page(title: str, content: str) -> Response[str]:
    html = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        '<meta name=viewport content="width=device-width">'
        f"<style>{_STYLE}</style><h1>{title}</h1>{content}"
    )
    return Response(html, media_type=MediaType.HTML, headers=_POLICY)


routes = Router("/", route_handlers=[openapi_json, reference_page, problems_page])
