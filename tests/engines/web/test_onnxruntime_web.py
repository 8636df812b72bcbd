import io
import json
import subprocess
import tarfile
import urllib.error

import pytest

from engines.errors import MachineError, UnsupportedError
from engines.web import onnxruntime_web

ELSEWHERE = r"npm pack onnxruntime-web@.*--onnxruntime-web onnxruntime-web-.*\.tgz"


@pytest.fixture
def unreached(monkeypatch):
    """Neither npm nor a network."""

    def refuse(url, **_):
        raise urllib.error.URLError(f"no route to {url}")

    monkeypatch.setattr(onnxruntime_web.shutil, "which", lambda _: None)
    monkeypatch.setattr(onnxruntime_web.urllib.request, "urlopen", refuse)
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)


def packed(folder):
    """A package of other bytes, as npm packs it."""
    with tarfile.open(folder / "package.tgz", "w:gz") as package:
        for name in onnxruntime_web.FILES:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            package.addfile(entry, io.BytesIO(name.encode()))
    return folder / "package.tgz"


def unpacked(folder, version=onnxruntime_web.VERSION):
    (folder / "dist").mkdir()
    (folder / "package.json").write_text(json.dumps({"version": version}))
    for name in onnxruntime_web.FILES:
        (folder / "dist" / name).write_bytes(name.encode())
    return folder


def test_a_build_for_processors_and_one_for_webgpu():
    assert set(onnxruntime_web.FILES) == {
        *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
        *("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
    }


def test_a_folder_of_the_package(tmp_path):
    assert onnxruntime_web.files(unpacked(tmp_path)) == {name: name.encode() for name in onnxruntime_web.FILES}


def test_a_folder_of_another_version_or_of_something_else(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(UnsupportedError, match=rf"is onnxruntime-web 1.2.3, and pages are written for .*{ELSEWHERE}"):
        onnxruntime_web.files(unpacked(tmp_path / "old", "1.2.3"))
    with pytest.raises(UnsupportedError, match=rf"is not the package onnxruntime-web: .*{ELSEWHERE}"):
        onnxruntime_web.files(tmp_path)
    with pytest.raises(UnsupportedError, match=r"absent\.tgz is not there"):
        onnxruntime_web.files(tmp_path / "absent.tgz")


def test_a_package_is_known_by_its_hash(tmp_path, monkeypatch):
    file = packed(tmp_path)
    with pytest.raises(UnsupportedError, match=rf"package.tgz is not npm's onnxruntime-web .* its hash is sha512-.*{ELSEWHERE}"):
        onnxruntime_web.files(file)
    own = f"sha512-{onnxruntime_web.base64.b64encode(onnxruntime_web.hashlib.sha512(file.read_bytes()).digest()).decode()}"
    monkeypatch.setattr(onnxruntime_web, "INTEGRITY", own)
    assert onnxruntime_web.files(file) == {name: name.encode() for name in onnxruntime_web.FILES}


@pytest.mark.usefixtures("unreached")
def test_without_npm_it_comes_from_the_registry_that_is_named(tmp_path, monkeypatch):
    data, asked = packed(tmp_path).read_bytes(), []
    monkeypatch.setattr(onnxruntime_web.urllib.request, "urlopen", lambda url, **_: asked.append(url) or io.BytesIO(data))
    for registry in ("https://npm.example/", "https://npm.example/mirror"):
        monkeypatch.setenv("npm_config_registry", registry)
        with pytest.raises(UnsupportedError, match="its hash is sha512-"):  # whoever answers, the bytes must be npm's
            onnxruntime_web.files()
    package = f"onnxruntime-web/-/onnxruntime-web-{onnxruntime_web.VERSION}.tgz"
    assert asked == [f"https://npm.example/{package}", f"https://npm.example/mirror/{package}"]
    monkeypatch.setenv("npm_config_registry", "file:///etc/")
    with pytest.raises(UnsupportedError, match="not reached by HTTPS"):
        onnxruntime_web.files()


@pytest.mark.usefixtures("unreached")
def test_without_a_network_it_says_how_to_fetch_it_elsewhere():
    with pytest.raises(MachineError, match=rf"https://registry.npmjs.org/.* cannot be fetched: no route to .*{ELSEWHERE}"):
        onnxruntime_web.files()


def test_what_npm_cannot_do_is_told_in_its_words(monkeypatch):
    def refuse(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "npm error code ENOTFOUND\nnpm error network no such host\n")

    monkeypatch.setattr(onnxruntime_web.shutil, "which", lambda _: "/usr/bin/npm")
    monkeypatch.setattr(onnxruntime_web.subprocess, "run", refuse)
    with pytest.raises(MachineError, match=rf"(?s)npm cannot fetch .*ENOTFOUND.*no such host.*{ELSEWHERE}"):
        onnxruntime_web.files()


def test_the_package_of_the_registry_is_the_one_that_is_pinned(library):
    """`library` came from there, which checked its hash."""
    module = (library / "dist/ort.wasm.min.mjs").read_text(encoding="utf-8")
    assert f"ONNX Runtime Web v{onnxruntime_web.VERSION}" in module
