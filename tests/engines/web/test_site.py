import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from engines.errors import BundleError, UnsupportedError
from engines.web import onnxruntime_web, site
from tests.engines.web import sites


@pytest.fixture(autouse=True)
def toy_library(monkeypatch):
    monkeypatch.setattr(onnxruntime_web, "files", lambda _: {name: name.encode() for name in onnxruntime_web.FILES})


@pytest.fixture
def bundle(tmp_path):
    return sites.clip(tmp_path / "bundle", {})


def below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_site_holds_what_its_model_lists_and_nothing_else(bundle, tmp_path):
    size = site.write(bundle.folder, tmp_path / "site")
    model = json.loads((tmp_path / "site/model.json").read_bytes())
    assert below(tmp_path / "site") == set(model["site"])
    assert size == sum((tmp_path / "site" / name).stat().st_size for name in model["site"])
    assert {"index.html", ".nojekyll", *(f"onnxruntime-web/{name}" for name in onnxruntime_web.FILES)} <= set(model["site"])
    assert set(model["files"]) == {
        *("onnx/20/text_encoder.onnx", "onnx/20/unet.onnx", "onnx/20/vae_decoder.onnx"),
        *("samplers/2.json", "samplers/4.json", "tokenizers/tokenizer.json"),
    }
    for name, entry in model["files"].items():
        data = b"".join((tmp_path / "site" / piece).read_bytes() for piece in entry["pieces"])
        assert (data, len(data)) == ((bundle.folder / name).read_bytes(), entry["size"])


def test_a_large_file_is_in_pieces(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "PIECE", 7)
    site.write(bundle.folder, tmp_path / "site")
    pieces = json.loads((tmp_path / "site/model.json").read_bytes())["files"]["onnx/20/unet.onnx"]["pieces"]
    assert pieces == ["onnx/20/unet.onnx.0", "onnx/20/unet.onnx.1", "onnx/20/unet.onnx.2"]
    assert b"".join((tmp_path / "site" / piece).read_bytes() for piece in pieces) == b"onnx/20/unet.onnx"
    assert not (tmp_path / "site/onnx/20/unet.onnx").exists()


def test_it_is_written_over_a_site_and_leaves_what_is_not_of_it(bundle, tmp_path, monkeypatch):
    folder = tmp_path / "site"
    (folder / ".git").mkdir(parents=True)
    site.write(bundle.folder, folder)
    (folder / "CNAME").write_text("draw.example")
    monkeypatch.setattr(site, "PIECE", 7)
    site.write(bundle.folder, folder)
    assert below(folder) == {*json.loads((folder / "model.json").read_bytes())["site"], "CNAME"}
    assert not (folder / "onnx/20/unet.onnx").exists()
    assert (folder / ".git").is_dir()


@pytest.mark.parametrize("content", [None, "{}", '{"site": 1}', "no JSON"])
def test_a_folder_of_something_else_is_left_alone(bundle, tmp_path, content):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    if content is not None:
        (folder / "model.json").write_text(content)
    before = below(folder)
    with pytest.raises(UnsupportedError, match="holds something else than a site"):
        site.write(bundle.folder, folder)
    assert below(folder) == before


def test_a_site_that_lists_files_of_others_has_none_of_them_removed(bundle, tmp_path):
    folder, other = tmp_path / "site", tmp_path / "other.txt"
    other.write_text("mine")
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"site": ["../other.txt", str(other), "a/../../other.txt"]}))
    site.write(bundle.folder, folder)
    assert other.read_text() == "mine"


def test_a_damaged_bundle_makes_no_site(bundle, tmp_path):
    (bundle.folder / "onnx/20/unet.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"unet.onnx is damaged"):
        site.write(bundle.folder, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_what_ended_in_the_middle_is_written_again(bundle, tmp_path, monkeypatch):
    put = site._put

    def until(place, data):
        if place.name == "page.js":
            raise KeyboardInterrupt
        return put(place, data)

    monkeypatch.setattr(site, "_put", until)
    with pytest.raises(KeyboardInterrupt):
        site.write(bundle.folder, tmp_path / "site")
    monkeypatch.setattr(site, "_put", put)
    site.write(bundle.folder, tmp_path / "site")
    assert below(tmp_path / "site") == set(json.loads((tmp_path / "site/model.json").read_bytes())["site"])


def test_the_command_says_how_to_see_it(bundle, tmp_path):
    from exporter.cli import verbs

    done = CliRunner().invoke(verbs, ["web", str(bundle.folder), "-o", str(tmp_path / "site")])
    assert done.exit_code == 0, done.output
    assert re.search(r"/site: [\d.]+ MB\. See it at http://localhost:8000 with: python -m http\.server -d .*/site$", done.output)
    assert (tmp_path / "site/index.html").is_file()


@pytest.mark.parametrize("what", ["nothing", "a folder"])
def test_what_is_no_bundle_makes_no_site(tmp_path, what):
    (tmp_path / "a folder").mkdir()
    with pytest.raises(BundleError):
        site.write(tmp_path / what, tmp_path / "site")


def test_every_module_that_the_page_imports_is_there():
    static = Path(site.__file__).parent / "static"
    named = {name for file in static.glob("*.js") for name in re.findall(r' from "\./([^"]+)"', file.read_text(encoding="utf-8"))}
    assert named
    assert named <= {file.name for file in static.iterdir()}
