"""What inspect and list know, as plain data."""

import json
import sys

import pytest
from click.testing import CliRunner

from engines import plugins
from engines.bundle import Verdict
from engines.errors import BundleError
from exporter import cli
from exporter.recipe import shipped
from exporter.recipe.schema import Recipe
from exporter.report import describe
from tests.engines import small


def test_a_bundle_by_its_manifest(tmp_path):
    values = {"relative_l2": 0.00123, "psnr": 61.25}
    verdicts = [
        Verdict(part="unet", stage="s", case="c", backend="b", values=values, limit={"psnr": 30.0}, passed=True),
        Verdict(part="unet", stage="s", case="c", passed=False),
    ]
    made = small.make(tmp_path / "b", verdicts=tuple(verdicts), notes=("a note",))
    found = describe.bundle(made.folder)
    assert json.loads(json.dumps(found)) == found
    assert found["bundle"] == "small"
    assert found["source"] == "revision 0"
    assert found["guidance"] == "classifier_free 2.0"
    assert found["default"] == "32 x 32 px, 2 steps"
    assert found["size"] == f"{sum(file.size for file in made.manifest.files.values()) / 1e6:,.2f} MB"
    assert found["parts"][1] == {
        "part": "unet", "role": "denoiser", "parameters": "7", "precision": "fp32", "passes": "", "opset": "20", "nodes": "9 → 5",
        "ONNX MB": "0.00",
    }  # fmt: skip
    assert [engine["options"] for engine in found["engines"]] == ["threads 1"] * 3
    assert [row["size"] for row in found["samplers"]] == ["any", "32 x 64 px"]
    assert found["verdicts"][0] == {
        "part": "unet", "stage": "s", "backend": "b", "rel. L2": "1.2e-03", "PSNR": "61.2 dB", "limit": "30 dB", "verdict": "ok",
    }  # fmt: skip
    assert list(found["verdicts"][1].values()) == ["unet", "s", "", "", "", "", "FAIL"]
    assert found["notes"] == ["a note"]
    unguided = describe.bundle(small.make(tmp_path / "c", mode="none").folder)
    assert unguided["guidance"] == "none"
    with pytest.raises(BundleError, match="missing"):
        describe.bundle(tmp_path)


@pytest.mark.parametrize("kind", ["families", "passes", "backends", "samplers"])
def test_plugins_are_listed_by_their_first_line_and_not_imported(kind):
    before = set(sys.modules)
    rows = describe.listing(kind)
    assert [row["name"] for row in rows] == plugins.names(kind)
    assert all(row["what"] for row in rows)
    assert not {name for name in set(sys.modules) - before if name.startswith(f"{plugins.KINDS[kind]}.")}


def test_every_list_can_be_listed():
    for kind in describe.LISTS:
        rows = describe.listing(kind)
        assert rows, kind
        assert all({"name", "what"} <= row.keys() or kind == "formats" for row in rows)
    assert [row["name"] for row in describe.listing("recipes")] == list(shipped.recipes())


def test_a_headline_is_the_first_sentence_of_the_comments(tmp_path):
    file = tmp_path / "a.yaml"
    for text, told in (
        ("# yaml-language-server: $schema=x\n# One. Two.\nmodel: 1\n", "One."),
        ("# One\n# goes on. Two.\n", "One goes on."),
        ("# No end\n", "No end"),
        ("model: 1\n", ""),
    ):
        file.write_text(text)
        assert describe._headline(file) == told


def test_a_plugin_of_another_package_says_so():
    assert describe._docstring(None) == "from another package"


@pytest.mark.parametrize(
    ("values", "told"),
    [({}, ""), ({"a": 1, "b": "x"}, "a 1, b x"), ({"a": ["8.6", "8.9"], "b": []}, "a 8.6, 8.9, b none")],
)
def test_pairs_in_words(values, told):
    assert describe._pairs(values) == told


@pytest.mark.parametrize(("verb", "flags", "shown"), [("build", ["--dry-run"], "25 steps"), ("inspect", [], "EulerDiscrete")])
def test_commands_describe_a_shipped_recipe_by_its_name(verb, flags, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = CliRunner().invoke(cli.verbs, [verb, "demo", *flags], catch_exceptions=False)
    assert shown in done.stdout


def test_a_model_that_is_on_the_hub_is_described_without_its_ip_adapter():
    text = """
model: {source: stable-diffusion-v1-5/stable-diffusion-v1-5, ip_adapter: {source: h94/IP-Adapter, subfolder: models}}
sampler: {steps: [2]}
shapes: {height: [64, 64, 64], width: [64, 64, 64]}
"""
    outline, note = describe._without_weights(Recipe.parse(text, "r"))
    assert (outline.model.weights, outline.model.source, outline.model.ip_adapter) == ("random", "sd-v1-5", None)
    assert "named architecture sd-v1-5, without the IP-Adapter and its image encoder" in note
