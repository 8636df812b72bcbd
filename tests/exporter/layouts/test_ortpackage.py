"""The package's manifest and its shared asset, as model_package/README.md of onnxruntime has them."""

import hashlib
import json

import pytest

from exporter.layouts import ortpackage


@pytest.fixture
def package(tmp_path):
    for name in ("unet", "vae_decoder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text(name)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("[]")
    (tmp_path / "model_index.json").write_text("index")
    ortpackage.write(tmp_path, "demo", ["unet", "vae_decoder"])
    return tmp_path


def test_every_network_is_a_component_whose_variants_name_their_provider(package):
    manifest = json.loads((package / "manifest.json").read_text())
    assert set(manifest) <= {"schema_version", "package_name", "components", "additional_metadata"}
    assert (manifest["schema_version"], manifest["package_name"]) == ("1.0", "demo")
    assert list(manifest["components"]) == ["unet", "vae_decoder"]
    for name, component in manifest["components"].items():
        assert {body["ep"] for body in component["variants"].values()} == {"CPUExecutionProvider", "CUDAExecutionProvider"}
        for body in component["variants"].values():
            file = package / body["variant_directory"] / body["executor_info"]["ort"]["model_file"]
            assert file.read_text() == name


def test_what_lies_beside_is_one_asset_named_by_its_content(package):
    manifest = json.loads((package / "manifest.json").read_text())
    scheme, _, digest = manifest["additional_metadata"]["pipeline"].partition(":")
    asset = package / "shared_assets" / f"{scheme}-{digest}"
    files = {
        "model_index.json": b"index",
        "scheduler/scheduler_config.json": b"[]",
        "unet/config.json": b"{}",
        "vae_decoder/config.json": b"{}",
    }
    assert {path.relative_to(asset).as_posix(): path.read_bytes() for path in asset.rglob("*") if path.is_file()} == files
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    assert digest == hashlib.sha256(lines.encode()).hexdigest()
    assert {path.name for path in package.iterdir()} == {"manifest.json", "shared_assets", "unet", "vae_decoder"}
