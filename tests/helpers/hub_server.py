"""A server that speaks as much of the hub's protocol as huggingface_hub needs to download and to upload, and can break
off, damage, refuse and rename.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes from which a file has a SHA-256 on the hub, as in Git LFS


@dataclass
class Repo:
    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    license: str | None = "mit"
    refused: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    damaged: set[str] = field(default_factory=set)  # files that are sent with other bytes
    cuts: dict[str, list[int]] = field(default_factory=dict)  # file → bytes after which each next answer breaks off

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class Hub:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: Counter[str] = Counter()  # "GET path" → times
        self.ranges: list[str] = []
        self.endpoint = ""


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch, endpoint: str | None, cache: Path) -> None:
    """What HF_ENDPOINT, HF_HUB_OFFLINE and HF_HUB_CACHE do at the start of a process. endpoint None: offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", endpoint is None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    if endpoint is not None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802  (http.server's name)
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        path = unquote(urlsplit(self.path).path)
        self.hub.asked[f"{self.command} {path}"] += 1
        if about := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if repo := self._repo(about[1], about[2] or "main"):
                self._json(200, self._about(about[1], repo))
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", path):
            if repo := self._repo(file[1], file[2]):
                self._send_file(repo, file[3])
        else:
            self._refuse(404, "")

    def do_POST(self) -> None:  # noqa: N802
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            about = json.loads(body)
            name = f"{about.get('organization') or 'me'}/{about['name']}"
            self.hub.repos.setdefault(name, Repo({}))
            self._json(200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self._json(200, {"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.hub.repos[match[1]].files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = self.hub.repos[match[1]].commit
            page = f"{self.hub.endpoint}/{match[1]}/commit/{commit}"
            self._json(200, {"commitUrl": page, "commitOid": commit, "hookOutput": ""})
        else:
            self._json(200, {})

    def _repo(self, name: str, revision: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._refuse(401, "RepoNotFound")  # as the hub answers those who are not logged in
        elif repo.refused:
            self._refuse(*repo.refused)
        elif revision not in (*repo.revisions, repo.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _about(self, name: str, repo: Repo) -> dict:
        siblings = [{"rfilename": file, "size": len(content)} for file, content in repo.files.items()]
        card = {"license": repo.license} if repo.license else {}
        return {"id": name, "sha": repo.commit, "siblings": siblings, "cardData": card, "tags": [], "downloads": 0}

    def _send_file(self, repo: Repo, name: str) -> None:
        if name not in repo.files:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": repo.commit})
            return
        content = repo.files[name]
        etag = (hashlib.sha256 if len(content) >= LARGE else hashlib.sha1)(content).hexdigest()
        start = 0
        if asked := self.headers.get("Range"):
            self.hub.ranges.append(asked)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Linked-ETag", f'"{etag}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = (bytes(len(content)) if name in repo.damaged else content)[start:]
        cuts = repo.cuts.get(name)
        if cuts:
            self.wfile.write(sent[: cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(sent)

    def _json(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"X-Error-Code": code, "Content-Length": "0", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
