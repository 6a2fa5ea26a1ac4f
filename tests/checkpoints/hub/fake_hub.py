"""A Hugging Face Hub on this machine: enough of it to download from, create repositories and commit."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
_LARGE = (".safetensors", ".bin", ".png")


class Repository:
    """A repository: {branch: commit}, and the files of each commit."""

    def __init__(self, private=False):
        self.private, self.gated = private, False
        self.branches, self.commits, self.messages = {}, {}, []
        self.commit("main", {}, "initial commit")

    def commit(self, branch, files, message):
        """Adds files to a branch, and returns the commit."""
        whole = {**self.commits.get(self.branches.get(branch), {}), **files}
        oid = hashlib.sha1(repr((sorted(whole), len(self.commits), message)).encode()).hexdigest()
        self.commits[oid], self.branches[branch] = whole, oid
        self.messages.append(message)
        return oid

    def resolve(self, revision):
        """Returns the commit of a branch, or of its own name; None if there is none."""
        return self.branches.get(revision, revision if revision in self.commits else None)


class FakeHub:
    """A server and its repositories, by OWNER/NAME. `requests` are the methods and paths that were asked for."""

    def __init__(self):
        self.repositories, self.large, self.requests, self.metadata = {}, {}, [], []
        self.broken = None  # a status that answers everything
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def add(self, name, files, **options):
        """Adds a repository with files."""
        self.repositories[name] = repository = Repository(**options)
        repository.commit("main", files, "files")
        return repository

    def downloads(self):
        """Returns the names of the files that were downloaded."""
        return [path.rpartition("/")[2] for method, path in self.requests if method == "GET" and "/resolve/" in path]

    def close(self):
        """Ends the server."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: FakeHub

    def log_message(self, *args):
        self.server_hub.requests.append((self.command, self.path))

    def do_HEAD(self):
        self._read()

    def do_GET(self):
        self._read()

    def do_PUT(self):
        self.server_hub.large[self.path.rpartition("/")[2]] = self._body()
        self._answer(200)

    def do_POST(self):
        body, hub = self._body(), self.server_hub
        path = urlsplit(self.path).path
        if hub.broken:
            return self._answer(hub.broken, {"error": "broken"})
        if path == "/api/validate-yaml":
            hub.metadata.append(json.loads(body)["content"])
            return self._answer(200, {"warnings": [], "errors": []})
        if not self._logged_in():
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.address}/large/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        name, action, revision = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/(.+)", path).groups()
        repository, revision = hub.repositories[name], unquote(revision)
        if action == "branch":
            known = revision in repository.branches
            repository.branches.setdefault(revision, repository.branches["main"])
            return self._answer(409 if known else 200, {})
        if action == "preupload":
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        assert action == "commit", path
        return self._commit(name, repository, revision, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked):
        hub, name = self.server_hub, f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "me":
            return self._answer(403, {"error": f"You don't have the rights to create a model under {asked['organization']}"})
        address = f"{hub.address}/{name}"
        if name in hub.repositories:
            return self._answer(409, {"error": "You already created this model repo", "url": address})
        private = asked.get("private") or asked.get("visibility") == "private"
        hub.repositories[name] = Repository(private=bool(private))
        return self._answer(200, {"url": address, "name": name})

    def _commit(self, name, repository, branch, lines):
        files, message = {}, ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = content = self.server_hub.large[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
        oid = repository.commit(branch, files, message)
        address = f"{self.server_hub.address}/{name}/commit/{oid}"
        return self._answer(200, {"success": True, "commitOid": oid, "commitUrl": address})

    def _read(self):
        hub, path = self.server_hub, urlsplit(self.path).path
        if hub.broken:
            return self._answer(hub.broken, {"error": "broken"})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        name, revision, file = (
            (*found.groups(), None) if found else re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path).groups()
        )
        repository, revision = hub.repositories.get(name), unquote(revision or "main")
        if repository is None or (repository.private and not self._logged_in()):
            return self._answer(404 if self._logged_in() else 401, {"error": "Repository not found"}, code="RepoNotFound")
        if repository.gated and (file or not found):
            return self._answer(403, {"error": "restricted"}, code="GatedRepo")
        oid = repository.resolve(revision)
        if oid is None:
            return self._answer(404, {"error": "Invalid rev id"}, code="RevisionNotFound")
        files = repository.commits[oid]
        if file is None:
            siblings = [{"rfilename": name} for name in files]
            return self._answer(200, {"id": name, "sha": oid, "private": repository.private, "siblings": siblings})
        if file not in files:
            return self._answer(404, {"error": "Entry not found"}, code="EntryNotFound", commit=oid)
        return self._answer(200, files[file], commit=oid)

    def _logged_in(self):
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status, content=b"", code=None, commit=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        headers |= {"X-Repo-Commit": commit} if commit else {}
        headers |= {"X-Error-Code": code} if code else {}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
