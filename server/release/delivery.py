"""Releases over HTTPS: two named files of a version, streamed, and nothing else of the disk."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

FILES = {"manifest.json": "application/json", "model.onnx": "application/octet-stream"}
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def release_file(directory: Path, version: str, name: str) -> Path | None:
    """The file of a release, or None: only whitelisted names of plain versions, and no links out of the directory."""
    if name not in FILES or not _VERSION.fullmatch(version):
        return None
    path = directory / version / name
    try:
        inside = path.resolve(strict=True).is_relative_to(directory.resolve(strict=True))
    except OSError:
        return None
    return path if inside and path.is_file() else None


def delivery_app(directory: Path) -> Starlette:
    """`GET /releases/<version>/<file>`."""

    def get(request: Request) -> Response:
        name = request.path_params["name"]
        path = release_file(directory, request.path_params["version"], name)
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=FILES[name])

    return Starlette(routes=[Route("/releases/{version}/{name}", get, methods=["GET"])])
