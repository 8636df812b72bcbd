"""The hub's road, executed: a server on loopback speaks the hub's protocol, and serves the tiny SDXL."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlparse

import huggingface_hub
import pytest

from engines.disk import DiskFull
from engines.errors import UnsupportedError
from exporter.models import hub
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions
from tools.coverage import conditioned, prompted, unets

COMMIT = "c0ffee" + "0" * 34
DENIED = {
    "gated": (403, "GatedRepo", "Access to model owner/gated is restricted"),
    "private": (401, "RepoNotFound", "Repository not found"),
    "forbidden": (403, "", "Forbidden"),
    "broken": (503, "", "Service Unavailable"),
    "often": (429, "", "Too Many Requests"),
    "disabled": (403, "", "Access to this resource is disabled."),
    "gone": (410, "", "Gone"),
}
#: What is answered by who is not the hub.
STRANGE = {"page": b"<html>log in</html>", "list": b"[]", "empty": b"", "nothing": b'{"id": "owner/nothing", "siblings": []}'}


class _Hub(BaseHTTPRequestHandler):
    def __init__(self, state, *args):
        self.state = state
        super().__init__(*args)

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlparse(self.path).path).strip("/")
        self.state.asked.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        for name, (status, code, told) in DENIED.items():
            if f"owner/{name}" in path:
                self.answer(status, json.dumps({"error": told}).encode(), X_Error_Code=code, X_Error_Message=told)
                return
        for name, body in STRANGE.items():
            if f"owner/{name}" in path:
                self.answer(200, body, Content_Type="application/json")
                return
        names = sorted(file.relative_to(self.state.folder).as_posix() for file in self.state.folder.rglob("*") if file.is_file())
        if path.startswith("api/models/owner/name"):
            revision = path.partition("/revision/")[2] or "main"
            if revision not in {"main", COMMIT}:
                self.answer(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            elif "/tree/" in path:
                sizes = {name: (self.state.folder / name).stat().st_size for name in names}
                rows = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]
                self.answer(200, json.dumps(rows).encode(), Content_Type="application/json")
            else:
                info = {"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            return
        name = path.partition(f"owner/name/resolve/{COMMIT}/")[2]
        if name not in names:
            self.answer(404, b"", X_Error_Code="EntryNotFound")
            return
        self.serve((self.state.folder / name).read_bytes(), name)

    def serve(self, content, name):
        marks = {"ETag": f'"{abs(hash((name, len(content)))):040x}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if self.command == "GET" and first == 0 and self.state.cut.get(name):
            self.send_response(200)
            for key, value in {**marks, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: self.state.cut.pop(name)])
            self.wfile.flush()
            self.connection.close()
            return
        extra = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if self.headers.get("Range") else {}
        headers = {key.replace("-", "_"): value for key, value in {**marks, **extra}.items()}
        self.answer(206 if extra else 200, content[first:], **headers)


@contextlib.contextmanager
def serving(folder):
    state = SimpleNamespace(folder=folder, asked=[], cut={}, url="")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def pointed(monkeypatch, tmp_path):
    """Point the library at an endpoint, as HF_ENDPOINT would before it is imported, with a cache of its own."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def point(url, *, offline=False):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)

    return point


@pytest.fixture
def served(tiny_sdxl, tmp_path):
    folder = Path(shutil.copytree(tiny_sdxl, tmp_path / "served"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("#")
    with serving(folder) as state:
        yield state


def found(**fields):
    return resolve(ModelOptions(source="owner/name", **fields), Path())


def test_the_whole_road(served, tmp_path, tiny_sdxl):
    """As a user goes it, in a process of its own: HF_ENDPOINT, a download, and again without the network."""
    program = (
        "import pathlib, sys; from exporter.models.resolve import resolve; from exporter.recipe.schema import ModelOptions;"
        "c = resolve(ModelOptions(source='owner/name'), pathlib.Path());"
        "print(c.provenance['revision'], sum(f.stat().st_size for fs in c.files.values() for f in fs), *c.notes, sep='\\n')"
    )
    size = sum(file.stat().st_size for file in tiny_sdxl.rglob("*.safetensors"))
    for offline in ("0", "1"):
        environment = {**os.environ, "HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": offline}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        told = done.stdout.splitlines()
        assert told[:2] == [COMMIT, str(size)]
        assert len(told) == 2 + int(offline)
    assert "owner/name: the hub was not reached" in told[2]
    paths = [path for command, path, *_ in served.asked if command == "GET" and "resolve" in path]
    fetched = {path.partition(f"resolve/{COMMIT}/")[2] for path in paths}
    assert "unet/diffusion_pytorch_model.safetensors" in fetched
    assert not fetched & {"unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "README.md"}


def test_an_ip_adapter_comes_with_its_image_encoder_and_nothing_else(served, pointed, tmp_path):
    made = unets.stable_diffusion()
    made.save_pretrained(tmp_path / "base")
    asked = prompted.write_ip_adapter(served.folder, prompted.ip_adapter(made.unet)) | {"source": "owner/name"}
    (served.folder / "models/ip-adapter.bin").write_bytes(b"pickle")
    model = ModelOptions.model_validate({"source": str(tmp_path / "base"), "ip_adapter": asked})
    pointed(served.url)
    assert resolve(model, Path()).provenance["ip_adapter"] == f"owner/name at {COMMIT} models/ip-adapter.safetensors"
    fetched = {path.partition(f"resolve/{COMMIT}/")[2] for _, path, *_ in served.asked} - {""}
    wanted = ("ip-adapter.safetensors", "image_encoder/config.json", "image_encoder/model.safetensors")
    assert fetched == {f"models/{name}" for name in wanted}
    pointed("http://127.0.0.1:9")
    (note,) = resolve(model, Path()).notes
    assert "comes from the cache" in note


def test_without_a_network_the_cache_is_taken(served, pointed):
    pointed(served.url)
    assert found().notes == ()
    before = len(served.asked)
    for revision in (None, "main", COMMIT):
        pointed("http://127.0.0.1:9")  # nobody listens there
        checkpoint = found(revision=revision)
        assert checkpoint.provenance["revision"] == COMMIT
        (note,) = checkpoint.notes
        assert f"its commit {COMMIT[:12]} comes from the cache" in note
        pointed(served.url, offline=True)
        assert found(revision=revision).notes
    assert len(served.asked) == before
    with pytest.raises(UnsupportedError, match="owner/name is not in the cache, and the hub was not reached"):
        found(revision="another")


def test_a_cache_that_is_not_whole(served, pointed):
    pointed(served.url)
    resolve(ModelOptions(source="owner/name", weights="random"), Path())  # which fetches no weights
    pointed("http://127.0.0.1:9")
    assert found(weights="random").notes
    with pytest.raises(UnsupportedError, match=r"not whole in the cache: text_encoder has no weights(.|\n)*goes on where it was"):
        found()


def test_a_download_that_was_broken_off_goes_on(served, pointed, monkeypatch):
    pointed(served.url)
    name = "unet/diffusion_pytorch_model.safetensors"
    served.cut[name] = 20_000
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # what is written at a time
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with contextlib.suppress(UnsupportedError):
        found()
    assert found().module("unet")
    ranges = [asked for command, path, asked, _ in served.asked if command == "GET" and path.endswith(name)]
    assert ranges[0] is None
    assert any(asked and int(asked.removeprefix("bytes=").partition("-")[0]) >= 10_000 for asked in ranges[1:]), ranges


@pytest.mark.parametrize(
    ("repo", "told"),
    [
        ("owner/gated", r"is gated: its licence must be accepted at http://127.*owner/gated(.|\n)*`hf auth login`"),
        ("owner/private", r"is not on the hub, or it is private\.\n  Check the id; for a private one: `hf auth login`"),
        ("owner/forbidden", r"may not be read by this account(.|\n)*licence(.|\n)*HF_TOKEN"),
        ("owner/broken", r"is not in the cache, and the hub was not reached"),
        ("owner/often", r"the hub was asked too often(.|\n)*Wait some minutes"),
        ("owner/disabled", r"has been disabled by the hub\.\n  Take the model from another source"),
        ("owner/gone", r"the hub refuses owner/gone: (.|\n)*Look whether http://127.*owner/gone is there"),
        ("o/" + "n" * 200, r"cannot be a hub id: "),
        *((f"owner/{name}", r"the hub was not reached: what answers there is not the hub, but a proxy") for name in STRANGE),
    ],
)
def test_what_may_not_be_read(served, pointed, repo, told):
    pointed(served.url)
    with pytest.raises(UnsupportedError, match=told):
        hub.fetch(repo, None)


def test_a_full_disk_is_the_machine_s(served, pointed, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    pointed(served.url)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(DiskFull, match=r"owner/name into the cache"):
        found()


def test_a_revision_that_is_not_there(served, pointed):
    pointed(served.url)
    with pytest.raises(UnsupportedError, match="owner/name has no revision 'v9'"):
        found(revision="v9")


def test_a_variant(served, pointed):
    pointed(served.url)
    (file,) = found(variant="fp16").files["unet"]
    assert file.name == "diffusion_pytorch_model.fp16.safetensors"
    assert found(variant="fp16").files["vae"][0].name == "diffusion_pytorch_model.safetensors"


def test_networks_beside_the_first_of_a_component_come_along(tmp_path, pointed):
    pipeline = conditioned.stable_diffusion_controlnet()
    networks = [pipeline.controlnet, pipeline.controlnet, pipeline.controlnet]
    several = type(pipeline)(**{**pipeline.components, "controlnet": networks}, requires_safety_checker=False)
    several.save_pretrained(tmp_path / "repo")
    with serving(tmp_path / "repo") as served:
        pointed(served.url)
        assert sorted(name for name in found().files if "controlnet" in name) == ["controlnet", "controlnet_1", "controlnet_2"]
