"""LoRAs are fused as diffusers fuses them, every weight of them, into the networks that they change and no other."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.models import lora
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions, Recipe
from exporter.stages.plan import Plan
from tests.exporter import loras

#: peft warns of what diffusers asks of it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
NETWORKS = ("unet", "text_encoder", "text_encoder_2")
TEXT = """\
model: {source: %s, loras: [%s]}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: none}}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
"""


def found(source, *changes, **fields):
    asked = [change if isinstance(change, dict) else {"source": str(change)} for change in changes]
    return resolve(ModelOptions.model_validate({"source": str(source), "loras": asked, **fields}), Path())


@pytest.fixture(scope="module")
def pipeline(request):
    """diffusers' own pipeline of the tiny SDXL."""
    return StableDiffusionXLPipeline.from_pretrained(request.getfixturevalue("tiny_sdxl"))


@pytest.fixture(scope="module")
def made(pipeline):
    """Layers for all three networks, of the first and of a second LoRA."""
    kinds = {"unet": loras.UNET, "text_encoder": loras.TEXT, "text_encoder_2": loras.TEXT}
    return [{name: loras.layers(getattr(pipeline, name), kinds[name], seed=seed) for name in NETWORKS} for seed in (1, 2)]


def theirs(source, *files_and_scales, cls=StableDiffusionXLPipeline):
    """The same LoRAs by diffusers alone."""
    found = cls.from_pretrained(source)
    for number, (file, _) in enumerate(files_and_scales):
        found.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=str(number))
    found.set_adapters([str(number) for number in range(len(files_and_scales))], [scale for _, scale in files_and_scales])
    found.fuse_lora(components=[name for name in NETWORKS if hasattr(found, name)])
    found.unload_lora_weights()
    return found


def same(checkpoint, pipeline, names=NETWORKS):
    for name in names:
        expected = getattr(pipeline, name).state_dict()
        got = checkpoint.module(name).state_dict()
        assert got.keys() == expected.keys()
        for key in got:
            torch.testing.assert_close(got[key], expected[key], rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("save", [loras.save, loras.save_kohya])
def test_equals_diffusers(tiny_sdxl, tmp_path, made, save):
    file = save(tmp_path / "a.safetensors", made[0])
    same(found(tiny_sdxl, {"source": str(file), "scale": 0.8}), theirs(tiny_sdxl, (file, 0.8)))


@pytest.mark.parametrize("save", [loras.save, loras.save_kohya])
def test_equals_the_formula(tiny_sdxl, tmp_path, made, pipeline, save):
    """Also with an alpha per layer, where diffusers 0.42 loads another network: hence the formula."""
    several = {"step": 1.0} if save is loras.save_kohya else {}
    file = save(tmp_path / "a.safetensors", made[0], **several)
    checkpoint = found(tiny_sdxl, {"source": str(file), "scale": 0.8})
    for name in NETWORKS:
        before, after = getattr(pipeline, name).state_dict(), checkpoint.module(name).state_dict()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed == {f"{layer}.weight" for layer in made[0][name]}
        for number, (layer, (a, b)) in enumerate(made[0][name].items()):
            alpha = a.shape[0] if save is loras.save else 2.0 + number % 2
            wanted = before[f"{layer}.weight"] + 0.8 * loras.delta(a, b, alpha)
            torch.testing.assert_close(after[f"{layer}.weight"], wanted, rtol=1e-5, atol=1e-6)


def test_two_loras_with_scales(tiny_sdxl, tmp_path, made):
    first, second = loras.save(tmp_path / "a.safetensors", made[0]), loras.save_kohya(tmp_path / "b.safetensors", made[1])
    checkpoint = found(tiny_sdxl, {"source": str(first), "scale": 0.8}, {"source": str(second), "scale": -0.5})
    same(checkpoint, theirs(tiny_sdxl, (first, 0.8), (second, -0.5)))
    assert checkpoint.provenance["lora 2"] == f"{second} × -0.5"


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"alpha_pattern": {"attn1.to_q": 4}}], ids=str)
def test_what_diffusers_itself_writes(tiny_sdxl, tmp_path, pipeline, changes):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    own = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    own.unet.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False, **changes))
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(own.unet),
        unet_lora_adapter_metadata=own.unet.peft_config["default"].to_dict(),
    )
    (file,) = tmp_path.glob("*.safetensors")
    checkpoint = found(tiny_sdxl, tmp_path)  # a folder with one file
    same(checkpoint, theirs(tiny_sdxl, (file, 1.0)))
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = load_file(file)
    wanted = pipeline.unet.state_dict()[f"{layer}.weight"] + loras.delta(
        tensors[f"unet.{layer}.lora_A.weight"],
        tensors[f"unet.{layer}.lora_B.weight"],
        8 * 2**0.5 if "use_rslora" in changes else changes.get("alpha_pattern", {}).get("attn1.to_q", 8),
    )
    torch.testing.assert_close(checkpoint.module("unet").state_dict()[f"{layer}.weight"], wanted, rtol=1e-5, atol=1e-6)


def test_stable_diffusion_1(tiny_sd, tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    networks = {
        "unet": loras.layers(pipeline.unet, loras.UNET),
        "text_encoder": loras.layers(pipeline.text_encoder, loras.TEXT),
    }
    file = loras.save_kohya(tmp_path / "a.safetensors", networks)
    tensors = {name.replace("lora_te1_", "lora_te_"): value for name, value in load_file(file).items()}
    save_file(tensors, file)
    same(found(tiny_sd, file), theirs(tiny_sd, (file, 1.0), cls=StableDiffusionPipeline), ("unet", "text_encoder"))


def test_half_precision_is_rounded_after_fusing_and_the_file_stays(tiny_sdxl, tmp_path, made):
    file = loras.save(tmp_path / "a.safetensors", {"unet": made[0]["unet"]})
    weights = tiny_sdxl / "unet" / "diffusion_pytorch_model.safetensors"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    full, half = (found(tiny_sdxl, file).module("unet", precision).state_dict() for precision in ("fp32", "fp16"))
    assert all(torch.equal(half[name], full[name].half()) for name in full)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == before


def test_keys_follow_the_loras_of_each_network(tiny_sdxl, tmp_path, made):
    file = loras.save(tmp_path / "a.safetensors", {"unet": made[0]["unet"]})

    def keys(*changes):
        listed = ", ".join(f"{{source: {source}, scale: {scale}}}" for source, scale in changes)
        plan = Plan(Recipe.parse(TEXT % (tiny_sdxl, listed), "x"))
        return {stage.name: stage.key.digest for stage in plan.stages}

    plain, fused, other = keys(), keys((file, 1.0)), keys((file, 0.5))
    differ = {name for name in plain if plain[name] != fused[name]}
    assert {subject.partition(",")[0] for verb, subject in differ if verb in {"export", "engine"}} == {"unet"}
    assert ("record", "source") in differ
    assert {name for name in plain if fused[name] != other[name]} == differ
    loras.save(file, {"unet": made[1]["unet"]})
    assert keys((file, 1.0))["record", "source"] != fused["record", "source"]


def test_the_recorded_source_is_the_fused_one(tiny_sdxl, tmp_path, made):
    file = loras.save(tmp_path / "a.safetensors", made[0])
    plan = Plan(Recipe.parse(TEXT % (tiny_sdxl, f"{{source: {file}}}"), "x"))
    pipeline, expected = plan.family.pipeline(), theirs(tiny_sdxl, (file, 1.0))
    inputs = {"prompt": "a circle", "num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}
    for each in (pipeline, expected):
        each.set_progress_bar_config(disable=True)
    got, wanted = (each(**inputs, generator=torch.Generator().manual_seed(3)).images for each in (pipeline, expected))
    assert abs(got - wanted).max() < 1e-4
    plain = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    plain.set_progress_bar_config(disable=True)
    assert abs(plain(**inputs, generator=torch.Generator().manual_seed(3)).images - wanted).max() > 1e-2


class TestRefused:
    @pytest.fixture
    def file(self, tmp_path, made):
        return loras.save(tmp_path / "a.safetensors", made[0])

    def change(self, file, how):
        tensors = load_file(file)
        how(tensors)
        save_file(tensors, file)
        return file

    def test_keys_of_no_network(self, tiny_sd, tiny_sdxl, file):
        with pytest.raises(UnsupportedError, match=r"weights have no place in the model: text_encoder_2\.(.|\n)*another model"):
            found(tiny_sd, file)
        self.change(file, lambda tensors: tensors.update({"transformer.x.lora_A.weight": torch.zeros(1)}))
        with pytest.raises(UnsupportedError, match=r"1 weights have no place in the model: transformer\.x\.lora_A"):
            found(tiny_sdxl, file)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("unet.nowhere.lora_A.weight", r"no place in the model: unet\.nowhere\.lora_A\.weight"),
            ("unet.conv_in.more", r"no place in the model: unet\.conv_in\.more"),
            ("unet.conv_in.lora_A.weight", r"unet\.conv_in has no up"),
            ("unet.conv_in.alpha", r"unet\.conv_in has alpha alone"),
            ("unet.conv_in.dora_scale", r"unet\.conv_in has dora_scale alone"),
        ],
    )
    def test_a_layer_that_is_not_there(self, tiny_sdxl, file, name, told):
        self.change(file, lambda tensors: tensors.update({name: torch.zeros(1)}))
        with pytest.raises(UnsupportedError, match=told):
            found(tiny_sdxl, file).module("unet")

    @pytest.mark.parametrize("component", NETWORKS)
    @pytest.mark.parametrize("half", ["A", "B"])
    def test_another_shape(self, tiny_sdxl, file, component, half):
        name = next(name for name in load_file(file) if name.startswith(f"{component}.") and f"lora_{half}" in name)
        self.change(file, lambda t: t.update({name: torch.cat([t[name]] * 2, dim=1 if half == "A" else 0)}))
        with pytest.raises(UnsupportedError, match=r"do not make the model's weight .*\n.*The LoRA is for another model"):
            found(tiny_sdxl, file).module(component)

    @pytest.mark.parametrize(
        ("left", "told"),
        [
            ("oft_blocks", "OFT"),
            ("oft_diag", "OFT"),
            ("on_input", r"\(IA\)³"),
            ("a1.weight", "GLoRA"),
            ("set_weight", "whole weights to put in place"),
            ("lora_embedding_A", "LoRA of embeddings"),
        ],
    )
    def test_formats_that_are_no_sums_are_called_by_their_names(self, tiny_sdxl, tmp_path, made, left, told):
        file = loras.save_kohya(tmp_path / "k.safetensors", {"unet": made[0]["unet"]})
        key = next(iter(load_file(file))).partition(".")[0]
        self.change(file, lambda tensors: tensors.update({f"{key}.{left}": torch.ones(1)}))
        with pytest.raises(UnsupportedError, match=rf"in a format that is not fused here, {told}: {key}\.{left}"):
            found(tiny_sdxl, file)

    def test_names_of_two_layouts_at_once(self, tiny_sdxl, tmp_path, made):
        """diffusers leaves one of them out without a word."""
        file = loras.save_kohya(tmp_path / "k.safetensors", {"unet": made[0]["unet"]})
        more = {f"lora_unet_input_blocks_1_0_x.lora_{half}.weight": torch.ones(2, 2) for half in ("down", "up")}
        self.change(file, lambda tensors: tensors.update(more))
        with pytest.raises(UnsupportedError, match="2 weights have no place in the model: lora_unet_input_blocks_1_0_x"):
            found(tiny_sdxl, file).module("unet")

    def test_numbers_that_are_none(self, tiny_sdxl, file):
        name = next(name for name in load_file(file) if name.startswith("unet."))
        self.change(file, lambda tensors: tensors[name].view(-1)[0].fill_(float("nan")))
        with pytest.raises(UnsupportedError, match="NaN or infinite"):
            found(tiny_sdxl, file).module("unet")

    def test_pickles_and_damage(self, tiny_sdxl, tmp_path, file):
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(UnsupportedError, match="whole safetensors file"):
            found(tiny_sdxl, file)
        with pytest.raises(UnsupportedError, match="only as a pickle"):
            found(tiny_sdxl, file.rename(file.with_suffix(".bin")))
        with pytest.raises(UnsupportedError, match="only as a pickle"):
            found(tiny_sdxl, tmp_path)

    def test_sources_are_located(self, tiny_sdxl, tmp_path, file):
        shutil.copy(file, tmp_path / "b.safetensors")
        for given, place, told in (
            (f"{{source: {tmp_path / 'c'}}}", "model.loras[0].source", "neither a file or folder"),
            (f"{{source: {tmp_path}}}", "model.loras[0].weight_name", "name one of: a.safetensors, b.safetensors"),
            (f"{{source: {tmp_path}, weight_name: c.safetensors}}", "model.loras[0].weight_name", "did you mean"),
        ):
            recipe = Recipe.parse(TEXT % (tiny_sdxl, given), "x", shown="x.yaml")
            with pytest.raises(RecipeError) as caught:
                Plan(recipe)
            (problem,) = recipe.located(caught.value.problems)
            assert problem.startswith(f"x.yaml:1  {place}: ")
            assert told in problem
        with pytest.raises(RecipeError, match=r"model\.loras: random weights"):
            found(tiny_sdxl, file, weights="random")


def test_a_hub_id_is_pinned(tiny_sdxl, tmp_path, made, monkeypatch):
    import huggingface_hub

    file = loras.save(tmp_path / "pytorch_lora_weights.safetensors", {"unet": made[0]["unet"]})
    asked = []

    class HfApi:
        def model_info(self, repo, revision=None):
            asked.append((repo, revision))
            names = ["README.md", "pytorch_lora_weights.safetensors", "other.safetensors"]
            return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name) for name in names])

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _repo, **_: str(tmp_path))
    checkpoint = found(tiny_sdxl, {"source": "owner/name", "revision": "main"})
    assert asked == [("owner/name", "main")]
    assert checkpoint.loras[0].file == file
    assert checkpoint.provenance["lora 1"] == "owner/name at c0ffee pytorch_lora_weights.safetensors × 1"


@pytest.mark.parametrize("spell", [str, loras.sgm], ids=["LCM-LoRA's names", "SDXL-Lightning's names"])
def test_published_names_find_every_layer_of_sdxl(tmp_path, spell):
    """On the full architecture, without memory for it: names alone, rank 1."""
    from exporter.models import lora_fuse

    checkpoint = resolve(ModelOptions(source="sdxl-base", weights="random"), Path())
    unet, tensors, layers = checkpoint.skeleton("unet"), {}, []
    for name, layer in unet.named_modules():
        if name.endswith(loras.UNET):
            key = f"lora_unet_{spell(name).replace('.', '_')}"
            outputs, *inputs = layer.weight.shape
            tensors |= {f"{key}.lora_down.weight": torch.zeros(1, *inputs), f"{key}.alpha": torch.tensor(1.0)}
            tensors[f"{key}.lora_up.weight"] = torch.zeros(outputs, 1, *[1] * (len(inputs) - 1))
            layers.append(name)
    save_file(tensors, tmp_path / "a.safetensors")
    (change,) = lora.resolve(
        ModelOptions(source="x", loras=({"source": str(tmp_path / "a.safetensors")},)), Path(), checkpoint.configs
    )
    pieces = lora_fuse.layers(unet, "unet", change, checkpoint.configs["unet"])
    assert sorted(pieces) == sorted(layers)
    assert all(each.keys() == {"down", "up", "alpha"} for each in pieces.values())
    assert len(layers) > 780


def test_fusing_needs_no_peft():
    import subprocess
    import sys

    program = "import sys; sys.modules['peft'] = None; import exporter.models.lora_fuse"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_planning_reads_no_torch(tiny_sdxl, tmp_path, made):
    import subprocess
    import sys

    file = loras.save(tmp_path / "a.safetensors", {"unet": made[0]["unet"]})
    program = (
        "import sys; from exporter.stages.plan import Plan; from exporter.recipe.schema import Recipe;"
        f"[s.key.digest for s in Plan(Recipe.parse({TEXT % (tiny_sdxl, f'{{source: {file}}}')!r}, 'x')).stages];"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert json.dumps(ModelOptions.model_json_schema())
