"""A stand-in for the Hub on localhost, which answers the client's HTTP requests for models and Spaces.

Supported: whoami, creating a repository, its info and tree, checking a card's YAML, preupload, Git LFS batch with
`basic` uploads, commits (ndjson), and downloads with ETag, X-Repo-Commit and, for large files, a redirect.
Not supported: the Xet protocol, by which a client with `hf_xet` moves large files to and from the real Hub (set
HF_HUB_DISABLE_XET=1), LFS in several parts, branches, pull requests, gated repositories, datasets, rate limits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants

_LFS = (".safetensors", ".bin", ".png", ".model", ".onnx", ".wasm")
_REPO = r"(?P<repo>(?:spaces/)?[\w.-]+/[\w.-]+)"
_MODEL = rf"/api/models/{_REPO}"


@dataclass
class Repo:
    """A repository.

    Attributes:
        commits: id → the files at that commit; `main` is the last one.
    """

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return next(reversed(self.commits))

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def commit(self, changes: dict[str, bytes]) -> str:
        files = {**(self.files if self.commits else {}), **changes}
        identifier = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[identifier] = files
        return identifier


@dataclass
class Hub:
    """The state of the Hub, which tests read and change.

    Attributes:
        tokens: token → its account, which may write to its own namespace.
        repos: name → repository; names of Spaces begin with `spaces/`, as their addresses do.
        fail: name of a handler → the error status that it responds with instead.
        flaky: name of a handler → its first responses instead: an error status, a closed connection (0), or a delay
            (seconds, as a negative number).
        elsewhere: the same server under another name; it serves large files, like the Hub's CDN.
        unknown: requests that this stand-in does not support.
    """

    tokens: dict[str, str]
    url: str = ""
    elsewhere: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    fail: dict[str, int] = field(default_factory=dict)
    flaky: dict[str, list[float]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def create(self, repo_id: str, private: bool = False) -> Repo:
        repo = self.repos[repo_id] = Repo(private)
        repo.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        return repo


class Refusal(Exception):
    """An error response (status 400 and above), in the Hub's format."""

    def __init__(self, status: int, message: str, code: str = ""):
        self.status, self.message, self.code = status, message, code


@contextmanager
def running_hub(**tokens: str) -> Iterator[Hub]:
    """Run a Hub on a free port of localhost, with tokens `name="hf_…"` of accounts."""
    hub = Hub({token: name for name, token in tokens.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url, hub.elsewhere = (f"http://{name}:{server.server_address[1]}" for name in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def reachable_hub(monkeypatch: pytest.MonkeyPatch, **tokens: str) -> Iterator[Hub]:
    """Run a Hub that this process takes for the real one, without a token and without pauses between tries."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("distil_nlp.hub.client.PAUSES", (0, 0, 0))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "no such file")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with running_hub(**tokens) as hub:
        files = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        yield hub


class _Handler(BaseHTTPRequestHandler):
    """Handles a request by the method that `_ROUTES` names."""

    hub: Hub

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            name, arguments = self._route()
            if name in self.hub.fail:
                raise Refusal(self.hub.fail[name], f"{name} was made to fail")
            if self.hub.flaky.get(name):
                status = self.hub.flaky[name].pop(0)
                if status <= 0:
                    time.sleep(-status)
                    return self.connection.close()
                raise Refusal(status, f"{name} was made to stumble")
            getattr(self, name)(**arguments)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **({"X-Error-Code": refusal.code} if refusal.code else {})}
            self._json({"error": refusal.message}, refusal.status, headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def _route(self) -> tuple[str, dict[str, str]]:
        path = self.path.partition("?")[0].replace("/api/spaces/", "/api/models/spaces/")
        method = self.command.replace("HEAD", "GET")
        for route_method, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == route_method:
                return name, match.groupdict()
        self.hub.unknown.append(f"{self.command} {path}")
        raise Refusal(501, "the stand-in does not support this")

    # Accounts and their rights

    def _account(self) -> str | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def _readable(self, name: str) -> Repo:
        account, repo = self._account(), self.hub.repos.get(name)
        if repo is None or (repo.private and account != name.split("/")[-2]):
            raise Refusal(404 if account else 401, "Repository not found", "RepoNotFound")
        return repo

    def _writable(self, name: str) -> Repo:
        repo = self._readable(name)
        if self._account() != name.split("/")[-2]:
            raise Refusal(403, f"You do not have write access to {name}")
        return repo

    def _at(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = repo.head if revision == "main" else revision
        if commit not in repo.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repo.commits[commit]

    # Responses

    def whoami(self) -> None:
        account = self._account()
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        self._json({"type": "user", "name": account, "orgs": []})

    def create(self) -> None:
        request, account = json.loads(self.body), self._account()
        owner = request.get("organization") or account
        repo_id = f"{'spaces/' * (request.get('type') == 'space')}{owner}/{request['name']}"
        if owner != account:
            raise Refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        if repo_id.startswith("spaces/") and request.get("sdk") != "static":
            raise Refusal(501, "the stand-in runs no Space of another sdk than static")
        if repo_id in self.hub.repos:
            return self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{repo_id}"}, 409)
        self.hub.create(repo_id, bool(request.get("private")) or request.get("visibility") == "private")
        self._json({"url": f"{self.hub.url}/{repo_id}", "name": repo_id})

    def info(self, repo: str, revision: str | None = None) -> None:
        repository = self._readable(repo)
        commit, files = self._at(repository, revision or "main")
        siblings = [{"rfilename": path} for path in sorted(files)]
        described = {
            "_id": commit[:24],
            "id": repo.removeprefix("spaces/"),
            "modelId": repo,
            "sha": commit,
            "private": repository.private,
        }
        self._json({**described, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, repo: str, revision: str, folder: str | None = None) -> None:
        _, files = self._at(self._readable(repo), revision)
        inside = {path: file for path, file in files.items() if folder is None or path.startswith(f"{folder}/")}
        if folder is not None and not inside:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        self._json(
            [{"type": "file", "path": path, "size": len(file), **_oids(path, file)} for path, file in inside.items()]
        )

    def validate(self) -> None:
        try:
            ModelCard(json.loads(self.body)["content"])
        except Exception as error:  # raised by the client's own classes
            return self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        self._json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        files = self._at(self._writable(repo), revision)[1]
        modes = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            oids = _oids(path, files[path]) if path in files else {"oid": None}
            mode = "lfs" if path.endswith(_LFS) else "regular"
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oids.get("lfs", oids)})
        self._json({"files": modes})

    def lfs_batch(self, repo: str) -> None:
        self._writable(repo)
        objects = []
        for entry in json.loads(self.body)["objects"]:
            actions = {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}"}}
            objects.append({**entry, **({} if entry["oid"] in self.hub.blobs else {"actions": actions})})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        content = self.body
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "the content has another sha256")
        self.hub.blobs[oid] = content
        self._json({})

    def commit(self, repo: str, revision: str) -> None:
        repository = self._writable(repo)
        self._at(repository, revision)
        changes = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                changes[value["path"]] = self.hub.blobs[value["oid"]]
            elif item["key"] != "header":
                raise Refusal(501, f"the stand-in does not support {item['key']}")
        identifier = repository.commit(changes)
        url = f"{self.hub.url}/{repo}/commit/{identifier}"
        self._json({"success": True, "commitOid": identifier, "commitUrl": url})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit, files = self._at(self._readable(repo), revision)
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            return self._json(
                {}, 404, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            )
        content, oids = files[path], _oids(path, files[path])
        if "lfs" in oids:
            sha256 = oids["lfs"]["oid"]
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            return self._answer(302, b"", {**headers, **linked, "Location": f"{self.hub.elsewhere}/lfs/{sha256}"})
        self._answer(200, content, {**headers, "ETag": f'"{oids["oid"]}"'})

    def lfs_download(self, oid: str) -> None:
        self._answer(200, self.hub.blobs[oid], {"ETag": f'"{oid}"'})

    # HTTP

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"{_MODEL}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{_MODEL}/commit/(?P<revision>[^/]+)", "commit"),
    ("GET", rf"{_MODEL}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    ("GET", rf"{_MODEL}(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "lfs_upload"),
    ("GET", r"/lfs/(?P<oid>\w+)", "lfs_download"),
    ("GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


def _oids(path: str, content: bytes) -> dict[str, Any]:
    """Return Git's id of a file, and for a large file its sha256 in LFS."""
    if not path.endswith(_LFS):
        return {"oid": _git_oid(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
    return {
        "oid": _git_oid(pointer.encode()),
        "lfs": {"oid": sha256, "size": len(content), "pointerSize": len(pointer)},
    }


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
