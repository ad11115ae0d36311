"""The console's own files: the style sheet, and what `make web` built from TypeScript.

They are few and small, so they are read once and served from memory. Nothing comes from elsewhere.
"""

from functools import cache
from hashlib import blake2b
from pathlib import Path

import msgspec
from litestar import Response, get
from litestar.exceptions import NotFoundException
from msgspec import Struct

STATIC = Path(__file__).parent.parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
_FOR_A_YEAR = "public, max-age=31536000, immutable"
_ENTRY = "src/console.ts"


class Asset(Struct, frozen=True):
    """A file as it is sent."""

    content: bytes
    media_type: str
    etag: str


class Assets(Struct, frozen=True):
    """All files by path below `static`, and the addresses a page needs.

    scripts is empty where nothing was built: pages then work without charts, and say so.
    """

    files: dict[str, Asset]
    style: str
    scripts: tuple[str, ...]
    styles: tuple[str, ...]


class _Chunk(Struct, frozen=True):
    file: str
    css: tuple[str, ...] = ()


@cache
def load_assets() -> Assets:
    """Read every file once."""
    files = {}
    for path in sorted(STATIC.rglob("*")):
        if path.is_file() and path.suffix in _MEDIA_TYPES:
            content = path.read_bytes()
            etag = blake2b(content, digest_size=8).hexdigest()
            name = path.relative_to(STATIC).as_posix()
            files[name] = Asset(content, _MEDIA_TYPES[path.suffix], etag)
    chunk = _entry()
    return Assets(
        files,
        f"/console/assets/console.css?v={files['console.css'].etag}",
        () if chunk is None else (f"/console/assets/built/{chunk.file}",),
        () if chunk is None else tuple(f"/console/assets/built/{name}" for name in chunk.css),
    )


def _entry() -> _Chunk | None:
    manifest = STATIC / "built" / "manifest.json"
    if not manifest.is_file():
        return None
    return msgspec.json.decode(manifest.read_bytes(), type=dict[str, _Chunk])[_ENTRY]


@get("/assets/{path:path}", sync_to_thread=False, opt={"public": True})
def asset(path: str) -> Response[bytes]:
    """One file; its address changes with its content, so a browser may keep it."""
    found = load_assets().files.get(path.lstrip("/"))
    if found is None:
        raise NotFoundException
    headers = {
        "Cache-Control": _FOR_A_YEAR,
        "ETag": f'"{found.etag}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(found.content, media_type=found.media_type, headers=headers)
