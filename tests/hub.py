"""A stand-in for the hub: repositories in memory, behind the addresses that `huggingface_hub` asks for."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by kind and name, each a dictionary of files; and what was asked."""

    def __init__(self):
        self.repositories = {}
        self.created = []
        self.rejects = False


def _answers(hub):
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def send(self, status, body=b"", headers=()):
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | dict(headers)).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def files(self, kind, name, revision="main"):
            """The files of a repository; None where the answer was that there is none."""
            files = hub.repositories.get((kind, name))
            if files is None or revision not in ("main", SHA):
                code = "RepoNotFound" if files is None else "RevisionNotFound"
                self.send(404, {"error": "not found"}, {"X-Error-Code": code})
                return None
            return files

        def do_GET(self):
            parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
            if parts[:2] == ["api", "whoami-v2"]:
                known = self.headers.get("Authorization") == "Bearer hf_known"
                self.send(200 if known else 401, {"name": "someone", "type": "user", "orgs": []})
            elif parts[0] == "api" and parts[1] in ("datasets", "models"):
                kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
                files = self.files(kind, name, rest[1] if len(rest) > 1 else "main")
                if files is None:
                    return
                if rest[:1] == ["tree"]:
                    below = "".join(f"{part}/" for part in rest[2:])
                    self.send(200, _tree(files, below, is_recursive="recursive=true" in self.path.lower()))
                    return
                siblings = [{"rfilename": path} for path in files]
                self.send(200, {"id": name, "sha": SHA, "siblings": siblings, "private": False, "tags": []})
            elif parts[0] == "datasets" and parts[3] == "resolve":
                files = self.files("datasets", "/".join(parts[1:3]), parts[4])
                path = "/".join(parts[5:])
                if files is None:
                    return
                if path not in files:
                    self.send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
                    return
                tag = hashlib.sha256(files[path]).hexdigest()
                self.send(200, files[path], {"X-Repo-Commit": SHA, "ETag": f'"{tag}"'})
            else:
                self.send(404, {"error": "no such address"})

        do_HEAD = do_GET

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
            if hub.rejects:
                self.send(403, {"error": "no rights"})
            elif parts == ["api", "repos", "create"]:
                asked = json.loads(body)
                hub.created.append(asked)
                kind = f"{asked.get('type', 'model')}s"
                name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
                hub.repositories.setdefault((kind, name), {})
                path = name if kind == "models" else f"{kind}/{name}"
                self.send(200, {"url": f"http://{self.headers['Host']}/{path}", "name": name})
            elif parts == ["api", "validate-yaml"]:
                self.send(200, {"warnings": [], "errors": []})
            elif parts[4] == "preupload":
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                self.send(200, {"files": files})
            elif parts[4] == "paths-info":
                files = self.files(parts[1], "/".join(parts[2:4]), parts[5])
                asked = json.loads(body)["paths"]
                self.send(200, [_entry(path, files) for path in asked if path in files])
            elif parts[4] == "commit":
                for line in body.splitlines():
                    item = json.loads(line)
                    if item["key"] == "file":
                        content = base64.b64decode(item["value"]["content"])
                        hub.repositories[parts[1], "/".join(parts[2:4])][item["value"]["path"]] = content
                self.send(
                    200,
                    {
                        "success": True,
                        "commitOid": SHA,
                        "commitUrl": f"http://{self.headers['Host']}/{parts[2]}/{parts[3]}/commit/{SHA}",
                    },
                )
            else:
                self.send(404, {"error": "no such address"})

    return Answers


def _entry(path, files):
    return {"type": "file", "path": path, "size": len(files[path]), "oid": hashlib.sha1(files[path]).hexdigest()}


def _tree(files, below, *, is_recursive):
    """The files below a folder, and the folders there; without what is deeper, unless that is wanted."""
    paths = [path for path in files if path.startswith(below)]
    folders = {below + path.removeprefix(below).split("/")[0] for path in paths} - {*paths}
    shown = paths if is_recursive else [path for path in paths if "/" not in path.removeprefix(below)]
    return [_entry(path, files) for path in shown] + [
        {"type": "directory", "path": path, "size": 0, "oid": SHA} for path in sorted(folders)
    ]


@contextmanager
def running_hub():
    """The hub, and the environment of a process that asks it."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _answers(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        yield hub, {"HF_ENDPOINT": address, "HF_TOKEN": "hf_known", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    finally:
        server.shutdown()
