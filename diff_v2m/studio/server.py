"""What is served, and to whom: files of job folders, and nothing else of this machine.

Requests from other pages are refused by their Host and Origin, so that no page in the same browser can reach the
studio. Where it listens beyond this machine, every request needs the password.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import logging
import os
import secrets
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from diff_v2m.common.errors import InputError
from diff_v2m.studio import LOOPBACK, UPLOADS
from diff_v2m.studio.folders import Jobs, clean_name

log = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
USER = "studio"
_CHUNK = 1 << 20  # bytes
_SLACK = 1 << 20  # bytes of a request around a video, where it is sent as a form
_ELSEWHERE = ("cross-site", "same-site")  # of Sec-Fetch-Site


class Guard:
    """ASGI middleware: refuses other hosts and origins, requests without the password, and bodies that are too long."""

    def __init__(self, app: ASGIApp, *, host: str, password: str | None, most_bytes: int):
        self.app, self.password, self.most_bytes = app, password, most_bytes
        self.is_local = host in LOOPBACK
        self.names = set(LOOPBACK) if self.is_local else {*LOOPBACK, host.lower(), *_own_names()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here uses them
            await WebSocketClose()(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def send_framed_by_nobody(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = "frame-ancestors 'self'"
            await send(message)

        await self.app(scope, _Bounded(receive, self.most_bytes), send_framed_by_nobody)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_own(host):
            return PlainTextResponse("This host name is not served.", 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("Requests of other pages are refused.", 403)
        is_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in _ELSEWHERE and not is_link:
            return PlainTextResponse("Requests of other pages are refused.", 403)
        is_public = scope["path"] == "/manifest.json"  # title and icon; browsers ask for it without the password
        if self.password is not None and not is_public and not self._knows_password(headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="Diff-V2M studio", charset="UTF-8"'}
            return PlainTextResponse("Password needed.", 401, challenge)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most_bytes:
            return PlainTextResponse("Too large: more than --max-upload.", 413, {"Connection": "close"})
        return None

    def _is_own(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name in self.names:
            return True
        if self.is_local:
            return False
        try:  # an address cannot be made to point elsewhere, as a name can
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _knows_password(self, given: str) -> bool:
        kind, _, token = given.partition(" ")
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except ValueError:
            return False
        right = secrets.compare_digest(password.encode(), self.password.encode())
        return right and kind.lower() == "basic" and user == USER


class _Bounded:
    """Receives at most so many bytes; a body without a length in its header is counted."""

    def __init__(self, receive: Receive, most_bytes: int):
        self.receive, self.left = receive, most_bytes

    async def __call__(self) -> Message:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            return {"type": "http.disconnect"}
        return message


def build_app(jobs: Jobs, *, host: str, password: str | None, most_bytes: int) -> FastAPI:
    """The application without the page: guard, uploads, files, downloads. most_bytes: of a video."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, host=host, password=password, most_bytes=most_bytes + _SLACK)

    @app.put("/upload")
    async def upload(name: str, request: Request) -> Response:
        part = jobs.path / UPLOADS / secrets.token_hex(8)
        try:
            part.parent.mkdir(exist_ok=True)
            with part.open("wb") as file:
                async for piece in request.stream():
                    file.write(piece)
                    if file.tell() > most_bytes:
                        raise InputError(f"{clean_name(name)}: more than {most_bytes >> 20} MB")
            job = await run_in_threadpool(jobs.add, part, name)
            return JSONResponse({"id": job.id})
        except InputError as error:  # not a status of its own, which browsers log as an error of the page
            return JSONResponse({"error": str(error)})
        except OSError as error:
            log.error("upload: %s", error)
            return JSONResponse({"error": f"{clean_name(name)}: cannot be stored ({error.strerror})"})
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        finally:
            part.unlink(missing_ok=True)

    @app.get("/files/{id}/{name:path}")
    def file(id: str, name: str, download: bool = False) -> Response:
        try:
            path = jobs[id].served(name)
        except InputError:
            path = None
        if path is None:
            return PlainTextResponse("No such file.", 404)
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return FileResponse(path, headers=headers, filename=path.name if download else None)

    @app.get("/download/{id}.zip")
    def download(id: str) -> Response:
        try:
            job = jobs[id]
        except InputError:
            return PlainTextResponse("No such job.", 404)
        paths = [path for path in sorted(job.path.rglob("*")) if job.served(path.relative_to(job.path).as_posix())]
        chosen = [(path, f"{job.name}/{path.relative_to(job.path).as_posix()}") for path in paths if path != job.video]
        name = quote(f"{job.name}.zip")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return StreamingResponse(zipped(chosen), media_type="application/zip", headers=headers)

    @app.get("/studio/{name}")
    def asset(name: str) -> Response:
        if name not in os.listdir(ASSETS):
            return PlainTextResponse("No such file.", 404)
        return FileResponse(ASSETS / name, headers={"Cache-Control": "no-cache"})

    return app


def zipped(files: list[tuple[Path, str]]) -> Iterator[bytes]:
    """A zip of (file, name in it), uncompressed, piece by piece: nothing is stored in between."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for path, name in files:
            with path.open("rb") as source, archive.open(zipfile.ZipInfo.from_file(path, name), "w") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield pipe.taken()
    yield pipe.taken()


class _Pipe(io.RawIOBase):
    """What zipfile writes to; it cannot seek, so sizes follow the content."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _own_names() -> set[str]:
    return {socket.gethostname().lower(), socket.getfqdn().lower()}
