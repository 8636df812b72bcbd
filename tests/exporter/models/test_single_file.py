"""A single file gives the same weights as the folder that it was made of, in every layout, and says what it lacks."""

import inspect
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.models import architectures, hub, recognition
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions
from tests.exporter import original

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture
def known(monkeypatch, tmp_path, tiny_sd, tiny_sdxl):
    """Architectures of the tiny models, in the place of the published ones."""
    folder = tmp_path / "architectures"
    folder.mkdir()
    for name, source in (("tiny-sd", tiny_sd), ("tiny-sdxl", tiny_sdxl)):
        found = resolve(ModelOptions(source=str(source)), Path())
        count = sum(value.numel() for value in found.module("unet").parameters())
        content = {"about": name, "parameters": {"unet": count}, **found.configs}
        (folder / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(architectures, "FOLDER", folder)
    recognition.known.cache_clear()
    yield folder
    recognition.known.cache_clear()


def beside(folder: Path, source: Path) -> Path:
    """A folder for the file, with the tokenizers beside it."""
    folder.mkdir()
    for name in ("tokenizer", "tokenizer_2"):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)
    return folder / "model.safetensors"


def same(found, source: Path) -> None:
    expected = resolve(ModelOptions(source=str(source)), Path())
    assert found.configs.keys() == expected.configs.keys()
    for name in NETWORKS:
        if name in expected.configs:
            ours, theirs = found.module(name).state_dict(), expected.module(name).state_dict()
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def resolved(file: Path, **fields):
    return resolve(ModelOptions(source=str(file), **fields), Path())


@pytest.mark.usefixtures("known")
class TestLayouts:
    def test_sd_1(self, tiny_sd, tmp_path):
        extra = {
            "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
            "betas": torch.ones(3),
        }
        file = original.save(tiny_sd, beside(tmp_path / "one", tiny_sd), extra=extra)
        found = resolved(file)
        assert found.provenance["architecture"] == "tiny-sd"
        same(found, tiny_sd)

    def test_sd_2(self, tiny_sd, tmp_path):
        spare = "cond_stage_model.model.transformer.resblocks.23.ln_1.bias"
        file = beside(tmp_path / "one", tiny_sd)
        same(resolved(original.save(tiny_sd, file, openclip=("text_encoder",), extra={spare: torch.ones(2)})), tiny_sd)

    def test_sdxl(self, tiny_sdxl, tmp_path):
        file = original.save(tiny_sdxl, beside(tmp_path / "one", tiny_sdxl), openclip=("text_encoder_2",))
        found = resolved(file)
        assert found.provenance["architecture"] == "tiny-sdxl"
        same(found, tiny_sdxl)
        assert len({found.digest(name) for name in NETWORKS}) == 4

    def test_diffusers_names_under_a_prefix(self, tiny_sdxl, tmp_path):
        tensors = {}
        for name in NETWORKS:
            tensors |= {
                f"{name}.{key}": value for key, value in load_file(next((tiny_sdxl / name).glob("*.safetensors"))).items()
            }
        file = beside(tmp_path / "one", tiny_sdxl)
        save_file(tensors, file)
        same(resolved(file), tiny_sdxl)


@pytest.mark.usefixtures("known")
class TestRefusals:
    @pytest.mark.parametrize("name", ["model.diffusion_model.extra", "first_stage_model.extra"])
    def test_surplus(self, tiny_sd, tmp_path, name):
        file = original.save(tiny_sd, beside(tmp_path / "one", tiny_sd), extra={name: torch.ones(7)})
        part = "unet" if "diffusion" in name else "vae"
        with pytest.raises(UnsupportedError, match=rf"have no place in the model: {name}"):
            resolved(file, architecture="tiny-sd").module(part)

    def test_missing(self, tiny_sd, tmp_path):
        file = original.save(tiny_sd, beside(tmp_path / "one", tiny_sd))
        tensors = load_file(file)
        del tensors["model.diffusion_model.input_blocks.0.0.bias"]
        save_file(tensors, tmp_path / "one" / "other.safetensors")
        with pytest.raises(UnsupportedError, match=r"conv_in\.bias"):
            resolved(tmp_path / "one" / "other.safetensors", architecture="tiny-sd").module("unet")

    def test_a_part_that_is_not_there(self, tiny_sd, tmp_path):
        file = original.save(tiny_sd, beside(tmp_path / "one", tiny_sd))
        tensors = {name: value for name, value in load_file(file).items() if not name.startswith("first_stage")}
        save_file(tensors, tmp_path / "one" / "other.safetensors")
        with pytest.raises(UnsupportedError, match=r"is a model without its VAE\.\n  Name another's as model\.vae"):
            resolved(tmp_path / "one" / "other.safetensors")

    def test_unknown_size(self, tmp_path):
        save_file({"model.diffusion_model.a": torch.ones(5)}, tmp_path / "m.safetensors")
        with pytest.raises(UnsupportedError, match=r"no UNet with a first convolution; its weights begin with model\."):
            resolved(tmp_path / "m.safetensors")

    def test_another_unet(self, tiny_sd, tmp_path):
        file = original.save(tiny_sd, beside(tmp_path / "one", tiny_sd))
        tensors = {name: value for name, value in load_file(file).items() if "input_blocks.1.1" not in name}
        file.unlink()
        save_file(tensors, file)
        with pytest.raises(UnsupportedError, match="the nearest is tiny-sd, whose UNet has other attentions"):
            resolved(file)

    def test_two_of_one_size_that_predict_differently(self, known, tiny_sd, tmp_path):
        content = json.loads((known / "tiny-sd.json").read_text())
        content["scheduler"] |= {"prediction_type": "v_prediction"}
        (known / "tiny-v.json").write_text(json.dumps(content))
        file = original.save(tiny_sd, beside(tmp_path / "one", tiny_sd))
        told = r"tiny-sd and tiny-v have(.|\n)*Set model\.architecture to one of: tiny-sd, tiny-v;"
        with pytest.raises(UnsupportedError, match=told):
            resolved(file)
        assert resolved(file, architecture="tiny-v").configs["scheduler"]["prediction_type"] == "v_prediction"

    def test_no_tokenizer(self, known, tiny_sd, tmp_path, monkeypatch):
        file = original.save(tiny_sd, tmp_path / "m.safetensors")
        with pytest.raises(UnsupportedError, match="holds weights and no tokenizer"):
            resolved(file)
        content = json.loads((known / "tiny-sd.json").read_text()) | {"hub": "owner/name"}
        (known / "tiny-sd.json").write_text(json.dumps(content))

        def offline(*_, **__):
            raise UnsupportedError("no network")

        monkeypatch.setattr(hub, "fetch", offline)
        with pytest.raises(UnsupportedError, match="owner/name, which has one, is out of reach"):
            resolved(file)
        monkeypatch.setattr(hub, "fetch", lambda *_, **__: hub.Fetched(tiny_sd, "c0ffee"))
        assert resolved(file).folders == {"tokenizer": tiny_sd / "tokenizer"}

    def test_unknown_architecture(self, tiny_sd, tmp_path):
        with pytest.raises(
            RecipeError, match=r"model\.architecture: no architecture named 'tiny-sdx'; did you mean 'tiny-sdxl'\?"
        ):
            resolved(original.save(tiny_sd, tmp_path / "m.safetensors"), architecture="tiny-sdx")

    def test_not_safetensors(self, tmp_path):
        (tmp_path / "m.gguf").write_bytes(b"")
        with pytest.raises(UnsupportedError, match=r"not a \.safetensors file"):
            resolved(tmp_path / "m.gguf")


def outlined(name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of an architecture's UNet, as its own class has them."""
    skeleton = resolve(ModelOptions(source=name, weights="random"), Path()).skeleton("unet")
    return {key: tuple(value.shape) for key, value in skeleton.state_dict().items()}


def hollow(file: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of these shapes with a hole for data: gigabytes that take no room."""
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end := end + 4 * math.prod(shape)]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    return file


@pytest.mark.parametrize("name", architectures.names())
def test_an_outline_is_that_of_the_network_itself(name):
    assert recognition.outline(outlined(name)) == recognition.of_config(architectures.configs(name)["unet"])


def test_a_silent_config_means_what_the_class_takes():
    from diffusers import UNet2DConditionModel

    parameters = inspect.signature(UNet2DConditionModel.__init__).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    assert recognition.of_config({}) == recognition.of_config(defaults)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sd-v1-5", "sd-v1-5"), ("sdxl-turbo", "sdxl-base"), ("ssd-1b", "ssd-1b"), ("koala-700m", "koala-700m")],
)
def test_published_architectures_are_recognised_whatever_else_is_in_the_file(tmp_path, name, expected):
    more = {"first_stage_model.encoder.conv_in.weight": (1,), "cond_stage_model.x": (1,), "unet.scaled_fp8": (2,)}
    more |= {"text_encoder_2.x": (1,), "first_stage_model.decoder.conv_in.weight": (1,)}
    for part in ("tokenizer", "tokenizer_2"):
        (tmp_path / part).mkdir()
    shapes = {f"unet.{key}": shape for key, shape in outlined(name).items()}
    found = resolved(hollow(tmp_path / "m.safetensors", shapes | more | {"unet.more": (7,)}))
    assert found.provenance["architecture"] == expected
