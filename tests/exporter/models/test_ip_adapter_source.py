"""An IP-Adapter that a recipe names: found as diffusers finds it, and refused by name where it does not fit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions
from tools.coverage import clip_images, pipelines, prompted, unets


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A micro model, and adapters for it as h94/IP-Adapter has them."""
    folder = tmp_path_factory.mktemp("adapters")
    base = unets.stable_diffusion()
    base.save_pretrained(folder / "base")
    prompted.write_ip_adapter(folder / "adapter", prompted.ip_adapter(base.unet))
    save_file(prompted.ip_adapter(base.unet, plus=True), folder / "adapter/models/plus.safetensors")
    save_file(prompted.ip_adapter(base.unet, width=64), folder / "adapter/models/wide.safetensors")
    faces = {"image_proj.norm.weight": torch.zeros(4), "image_proj.proj.0.weight": torch.zeros(4, 4)}
    save_file({**faces, "ip_adapter.1.to_k_ip.weight": torch.zeros(4, 4)}, folder / "adapter/models/faces.safetensors")
    save_file({"body.0.weight": torch.zeros(4)}, folder / "adapter/models/other.safetensors")
    torch.save({}, folder / "adapter/models/ip-adapter_sd15.bin")
    return folder


def found(place, **asked):
    fields = {"source": "adapter", "subfolder": "models", "weight_name": "ip-adapter.safetensors"} | asked
    given = {name: value for name, value in fields.items() if value is not None}
    return resolve(ModelOptions.model_validate({"source": str(place / "base"), "ip_adapter": given}), place)


@pytest.mark.parametrize("name", ["ip-adapter.safetensors", "plus.safetensors"])
def test_its_picture_is_read_by_the_image_encoder_beside_it(place, name):
    checkpoint = found(place, weight_name=name)
    assert checkpoint.ip_adapter.file == place / "adapter/models" / name
    assert checkpoint.configs["image_encoder"]["projection_dim"] == clip_images.PROJECTED
    assert checkpoint.files["image_encoder"] == (place / "adapter/models/image_encoder/model.safetensors",)
    index = checkpoint.configs["model_index"]
    assert index["image_encoder"] == ["transformers", "CLIPVisionModelWithProjection"]
    assert index["feature_extractor"] == ["transformers", "CLIPImageProcessor"]
    side = clip_images.SIDE
    assert checkpoint.configs["feature_extractor"]["crop_size"] == {"height": side, "width": side}
    assert checkpoint.configs["unet"]["encoder_hid_dim_type"] == "ip_image_proj"
    assert checkpoint.provenance["ip_adapter"] == f"adapter models/{name}"
    assert checkpoint.module("image_encoder").config.hidden_size == clip_images.WIDTH


def test_what_it_depends_on_is_the_adapter_s_file(place):
    plain = resolve(ModelOptions(source=str(place / "base")), place)
    one, other = found(place), found(place, weight_name="plus.safetensors")
    digests = {each.digest("unet") for each in (plain, one, other)}
    assert len(digests) == 3
    assert plain.digest("vae") == one.digest("vae")
    assert found(place).digest("unet") == one.digest("unet")


def test_a_file_alone_has_its_image_encoder_beside_it(place):
    checkpoint = found(place, source="adapter/models/ip-adapter.safetensors", subfolder=None, weight_name=None)
    assert checkpoint.files["image_encoder"] == (place / "adapter/models/image_encoder/model.safetensors",)
    with pytest.raises(RecipeError, match=r"model\.ip_adapter\.source: .* is a file; leave subfolder and weight_name out"):
        found(place, source="adapter/models/ip-adapter.safetensors")


def test_an_image_encoder_elsewhere_is_named_as_in_diffusers(place, tmp_path):
    shutil.copytree(place / "base", tmp_path / "base")
    shutil.copytree(place / "adapter/models", tmp_path / "adapter/sdxl_models")
    (tmp_path / "adapter/models").mkdir()
    (tmp_path / "adapter/sdxl_models/image_encoder").rename(tmp_path / "adapter/models/image_encoder")
    told = r"image_encoder_folder: adapter has no image encoder in sdxl_models/image_encoder; write models/image_encoder"
    with pytest.raises(RecipeError, match=told):
        found(tmp_path, subfolder="sdxl_models")
    checkpoint = found(tmp_path, subfolder="sdxl_models", image_encoder_folder="models/image_encoder")
    assert checkpoint.files["image_encoder"] == (tmp_path / "adapter/models/image_encoder/model.safetensors",)


def test_a_model_that_has_an_image_encoder_keeps_it(place, tmp_path):
    shutil.copytree(place / "base", tmp_path / "base")
    shutil.copytree(place / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter/models/image_encoder").rename(tmp_path / "base/image_encoder")
    index = json.loads((tmp_path / "base/model_index.json").read_text())
    index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    (tmp_path / "base/model_index.json").write_text(json.dumps(index))
    checkpoint = found(tmp_path)
    assert checkpoint.files["image_encoder"] == (tmp_path / "base/image_encoder/model.safetensors",)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"weight_name": "wide.safetensors"},
            r"wide\.safetensors is of another base: its cross-attention is 64 wide, .* UNet 32;",
        ),
        ({"weight_name": "faces.safetensors"}, r"is an IP-Adapter of the FaceID kind.*\n  Take a plain one"),
        ({"weight_name": "ip-adapter-faceid_sd15.bin"}, r"ip-adapter-faceid_sd15\.bin is an IP-Adapter of the FaceID kind"),
        ({"weight_name": "other.safetensors"}, r"is no IP-Adapter of Stable Diffusion or SDXL, but not one that is known"),
        ({"weight_name": "ip-adapter_sd15.bin"}, r"ip-adapter_sd15\.bin is no .*a pickle.*\n  Take ip-adapter_sd15\.safetensors"),
        ({"weight_name": "ip-adaptre.safetensors"}, r"has no 'ip-adaptre\.safetensors'; did you mean 'ip-adapter\.safetensors'"),
        ({"weight_name": None}, r"model\.ip_adapter\.weight_name: adapter/models has 5 files; name one of"),
        ({"subfolder": None, "weight_name": None}, r"subfolder: adapter has no files; there are adapters in models"),
        ({"image_encoder_folder": "encoder"}, r"adapter has no image encoder in models/encoder; write models/image_encoder"),
        ({"source": "nowhere"}, r"model\.ip_adapter\.source: 'nowhere' is neither"),
    ],
    ids=lambda value: ",".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_told_by_name(place, asked, told):
    with pytest.raises((RecipeError, UnsupportedError), match=f"(?s){told}"):
        found(place, **asked)


@pytest.mark.parametrize(
    ("field", "name"), [("projection_dim", "ip-adapter.safetensors"), ("hidden_size", "plus.safetensors")], ids=["plain", "plus"]
)
def test_an_image_encoder_of_another_width_is_told(place, tmp_path, field, name):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "adapter/models/image_encoder/config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {field: 80}))
    with pytest.raises(
        RecipeError, match=rf"image_encoder_folder: {name} reads an image encoder of {field} \d+, and this one's is 80"
    ):
        found(tmp_path, weight_name=name)
    file.write_text(json.dumps(config | {"model_type": "siglip_vision_model"}))
    with pytest.raises(RecipeError, match=r"holds a siglip_vision_model, and an IP-Adapter's picture is read by CLIP's"):
        found(tmp_path, weight_name=name)


def test_models_without_a_unet_and_without_weights_take_none(place, tmp_path):
    pipelines.flux().save_pretrained(tmp_path / "base")
    with pytest.raises(RecipeError, match=r"model\.ip_adapter: is for models with a UNet, .* and this is a FluxPipeline"):
        found(tmp_path, source=str(place / "adapter"))
    model = ModelOptions.model_validate({"source": "sd-v1-5", "weights": "random", "ip_adapter": {"source": "adapter"}})
    with pytest.raises(RecipeError, match=r"model\.ip_adapter: random weights hold nothing"):
        resolve(model, place)
