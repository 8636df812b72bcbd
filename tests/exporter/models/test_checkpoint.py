"""Every source gives one view, strictly: nothing missing, nothing left over, nothing run that came with the model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.models import architectures, hub, safetensors_header
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


@pytest.fixture
def copy(tiny_sdxl, tmp_path):
    """A copy of the tiny SDXL that a test may damage."""
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))


def checkpoint(source: Path | str, root: Path | None = None, **fields):
    return resolve(ModelOptions(source=str(source), **fields), root or Path())


def change(folder: Path, component: str, how) -> Path:
    """Rewrite a component's weights; `how` changes the dictionary in place."""
    file = folder / component / f"{WEIGHTS[component]}.safetensors"
    tensors = load_file(file)
    how(tensors)
    file.unlink()  # its pages may be mapped by a model that lives
    save_file(tensors, file)
    return file


class TestFolder:
    def test_loads_what_diffusers_saved(self, tiny_sdxl):
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextModelWithProjection

        source = checkpoint(tiny_sdxl)
        expected = UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet").state_dict()
        found = source.module("unet").state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        tower = CLIPTextModelWithProjection.from_pretrained(tiny_sdxl, subfolder="text_encoder_2").eval()
        ids = torch.tensor([[531, 5, 6, 532]])
        assert torch.equal(source.module("text_encoder_2")(ids).text_embeds, tower(ids).text_embeds)

    def test_configs_and_provenance(self, tiny_sdxl):
        source = checkpoint(tiny_sdxl)
        assert {"model_index", "unet", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"} == set(
            source.configs
        )
        assert source.configs["tokenizer_2"]["model_max_length"] == 77
        assert source.provenance == {"source": str(tiny_sdxl)}

    def test_is_looked_for_beside_the_recipe_first(self, tiny_sdxl, monkeypatch):
        monkeypatch.chdir("/")
        assert checkpoint(tiny_sdxl.name, tiny_sdxl.parent).folders["unet"] == tiny_sdxl / "unet"
        monkeypatch.chdir(tiny_sdxl.parent)
        assert checkpoint(tiny_sdxl.name, Path("/")).configs["unet"]

    def test_half_weights_stay_half_and_mapped(self, copy):
        change(copy, "unet", lambda tensors: tensors.update({name: value.half() for name, value in tensors.items()}))
        source = checkpoint(copy)
        assert {value.dtype for value in source.module("unet", "fp16").parameters()} == {torch.float16}
        assert {value.dtype for value in source.module("unet", "fp32").parameters()} == {torch.float32}

    def test_shards(self, copy):
        tensors = load_file(copy / "unet" / "diffusion_pytorch_model.safetensors")
        (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        names = sorted(tensors)
        for number, part in enumerate((names[:9], names[9:]), 1):
            file = copy / "unet" / f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, file)
        assert checkpoint(copy).module("unet")

    def test_one_variant_is_enough(self, copy):
        file = copy / "vae" / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
        assert checkpoint(copy).module("vae")

    @pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2"])
    def test_both_spellings_of_clip(self, copy, component):
        before = checkpoint(copy).module(component).state_dict()
        before = {name: value.clone() for name, value in before.items()}

        def respell(tensors):
            for name in list(tensors):
                bare = name.removeprefix("text_model.")
                other = bare if bare != name else f"text_model.{name}"
                tensors[name if "projection" in name else other] = tensors.pop(name)

        change(copy, component, respell)
        after = checkpoint(copy).module(component).state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)

    def test_old_attention_of_a_vae(self, copy):
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

        def respell(tensors):
            for name in [name for name in tensors if "mid_block.attentions" in name and "group_norm" not in name]:
                for new, spelling in old.items():
                    if f".{new}." in name:
                        tensors[name.replace(f".{new}.", f".{spelling}.")] = tensors.pop(name)

        change(copy, "vae", respell)
        assert checkpoint(copy).module("vae")

    def test_harmless_leftovers_are_ignored(self, copy):
        change(copy, "text_encoder", lambda t: t.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))
        assert checkpoint(copy).module("text_encoder")


class TestDamage:
    def refused(self, folder, component, *words):
        with pytest.raises(UnsupportedError) as caught:
            checkpoint(folder).module(component)
        for word in (component, *words):
            assert word in str(caught.value)

    def test_missing(self, copy):
        change(copy, "unet", lambda tensors: tensors.pop("conv_in.weight"))
        self.refused(copy, "unet", "1 weights are missing", "conv_in.weight", "take both from one place")

    def test_surplus(self, copy):
        change(copy, "unet", lambda tensors: tensors.update(extra=torch.zeros(1)))
        self.refused(copy, "unet", "no place in the model", "extra")

    def test_twice_under_both_spellings(self, copy):
        name = "embeddings.token_embedding.weight"

        def double(tensors):
            value = tensors.get(name, tensors.get(f"text_model.{name}"))
            tensors.update({name: value.clone(), f"text_model.{name}": value.clone()})

        change(copy, "text_encoder", double)
        self.refused(copy, "text_encoder", "no place in the model", name)

    def test_wrong_shape(self, copy):
        change(copy, "vae", lambda tensors: tensors.update({"decoder.conv_in.bias": torch.zeros(3)}))
        self.refused(copy, "vae", "decoder.conv_in.bias", "[3] in the file and [16] in the model")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, copy, value):
        change(copy, "unet", lambda tensors: tensors["conv_out.weight"].view(-1)[5].fill_(value))
        self.refused(copy, "unet", "conv_out.weight", "1 values that are NaN or infinite")

    def test_too_large_for_half(self, copy):
        change(copy, "unet", lambda tensors: tensors["conv_out.weight"].view(-1)[5].fill_(1e5))
        assert checkpoint(copy).module("unet")
        with pytest.raises(UnsupportedError, match="infinite in fp16"):
            checkpoint(copy).module("unet", "fp16")

    @pytest.mark.parametrize("left", [0, 5, 200, -1])
    def test_truncated(self, copy, left):
        file = copy / "unet" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:left])
        self.refused(copy, "unet", "is not a whole safetensors file", "again")

    def test_header_of_another_kind(self, tmp_path):
        for number, header in enumerate((b"[]", b'{"a": 1}', b'{"a": {}}', b"not json")):
            file = tmp_path / f"{number}.safetensors"
            file.write_bytes(len(header).to_bytes(8, "little") + header)
            with pytest.raises(UnsupportedError, match="whole safetensors file"):
                safetensors_header.shapes(file)

    def test_pickles_are_refused(self, copy):
        file = copy / "unet" / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_suffix(".bin"))
        with pytest.raises(UnsupportedError, match="safe_serialization=True"):
            checkpoint(copy)

    def test_no_weights_at_all(self, copy):
        (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(UnsupportedError, match="has no weights"):
            checkpoint(copy)
        assert checkpoint(copy, weights="random").module("unet")

    @pytest.mark.parametrize("index", [{"_class_name": ["mine", "Pipeline"]}, {"unet": ["mine", "UNet"]}])
    def test_code_is_refused(self, copy, index):
        file = copy / "model_index.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | index))
        with pytest.raises(UnsupportedError, match="code that comes with the model"):
            checkpoint(copy)

    def test_remote_class_in_a_config_is_refused(self, copy):
        file = copy / "text_encoder" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": {"AutoModel": "mine.Model"}}))
        with pytest.raises(UnsupportedError, match="code that comes with the model"):
            checkpoint(copy)

    def test_broken_json(self, copy):
        (copy / "vae" / "config.json").write_text("{")
        with pytest.raises(UnsupportedError, match="is not JSON"):
            checkpoint(copy)
        (copy / "vae" / "config.json").unlink()
        with pytest.raises(UnsupportedError, match="cannot be read"):
            checkpoint(copy)

    def test_a_folder_that_is_no_pipeline(self, tmp_path):
        with pytest.raises(UnsupportedError, match=r"no model_index\.json"):
            checkpoint(tmp_path)
        (tmp_path / "model.ckpt").write_bytes(b"")
        with pytest.raises(UnsupportedError, match="only as a pickle"):
            checkpoint(tmp_path)
        with pytest.raises(UnsupportedError, match="only as a pickle"):
            checkpoint(tmp_path / "model.ckpt")

    def test_an_unknown_class(self, copy):
        file = copy / "model_index.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"unet": ["diffusers", "UNet9000"]}))
        with pytest.raises(UnsupportedError, match="no network named 'UNet9000'"):
            checkpoint(copy).module("unet")


class TestRandom:
    def test_depends_on_seed_and_name_alone(self, tiny_sdxl):
        first, second = (checkpoint(tiny_sdxl, weights="random", seed=seed).module("unet").state_dict() for seed in (1, 2))
        again = checkpoint(tiny_sdxl, weights="random", seed=1).module("unet").state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["conv_in.weight"], second["conv_in.weight"])
        half = checkpoint(tiny_sdxl, weights="random", seed=1).module("unet", "fp16").state_dict()
        assert all(torch.equal(first[name].half(), half[name]) for name in first)

    def test_scale(self, tiny_sdxl):
        state = checkpoint(tiny_sdxl, weights="random").module("unet").state_dict()
        weight = state["time_embedding.linear_2.weight"]
        assert weight.std() * weight.shape[1] ** 0.5 == pytest.approx(1, abs=0.1)
        assert (state["conv_norm_out.weight"] == 1).all()
        assert (state["conv_norm_out.bias"] == 0).all()

    def test_golden(self, tiny_sdxl):
        """These numbers are a promise: change SCHEME in load.py when they change."""
        state = checkpoint(tiny_sdxl, weights="random").module("unet").state_dict()
        assert state["conv_in.weight"].view(-1)[:3].tolist() == pytest.approx(GOLDEN)

    def test_an_architecture_needs_random_weights(self):
        with pytest.raises(RecipeError, match=r"set model\.weights: random, or model.source: etri-vilab/koala-700m"):
            checkpoint("koala-700m")
        source = checkpoint("koala-700m", weights="random", seed=3)
        assert source.provenance == {"source": "koala-700m", "weights": "random", "seed": "3", "scheme": "uniform-1"}

    def test_nothing_there(self):
        with pytest.raises(RecipeError, match="did you mean 'koala-700m'"):
            checkpoint("koala-700", weights="random")
        with pytest.raises(RecipeError, match="neither a file or folder"):
            checkpoint("./nowhere/model.safetensors")


#: First three of unet.conv_in.weight of the tiny SDXL with seed 0.
GOLDEN = [0.12880612909793854, 0.10587456077337265, 0.08334825187921524]


class TestDigest:
    def test_follows_the_bytes(self, copy):
        before = {name: checkpoint(copy).digest(name) for name in checkpoint(copy).configs if name != "model_index"}
        assert len(set(before.values())) == len(before)
        change(copy, "unet", lambda tensors: tensors["conv_in.bias"][0].add_(1))
        after = {name: checkpoint(copy).digest(name) for name in before}
        assert {name for name in before if before[name] != after[name]} == {"unet"}

    def test_follows_config_seed_and_vocabulary(self, copy):
        one, two = (checkpoint(copy, weights="random", seed=seed).digest("unet") for seed in (0, 1))
        assert one != two
        before, tower = checkpoint(copy).digest("tokenizer"), checkpoint(copy).digest("text_encoder")
        (copy / "tokenizer" / "tokenizer_config.json").write_text("{}")
        assert checkpoint(copy).digest("tokenizer") != before
        assert checkpoint(copy).digest("text_encoder") != tower
        before = checkpoint(copy).digest("vae")
        file = copy / "vae" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"scaling_factor": 2.0}))
        assert checkpoint(copy).digest("vae") != before
        before = checkpoint(copy).digest("text_encoder_2")
        file = copy / "model_index.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"force_zeros_for_empty_prompt": False}))
        assert checkpoint(copy).digest("text_encoder_2") != before


class TestHub:
    FILES = (
        "README.md", "model_index.json", "sd_xl.safetensors", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin", "unet/model.onnx", "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
        "safety_checker/config.json",
    )  # fmt: skip

    @pytest.fixture
    def fake(self, monkeypatch, tiny_sdxl):
        """A hub that serves the tiny SDXL under any name, and notes what was asked."""
        import huggingface_hub

        asked = SimpleNamespace(files=self.FILES, patterns=None, revision=None)

        class HfApi:
            def model_info(self, repo, revision=None):
                asked.repo, asked.revision = repo, revision
                return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name) for name in asked.files])

        def snapshot_download(repo, *, revision, allow_patterns, **_):
            assert (repo, revision) == (asked.repo, "c0ffee")
            asked.patterns = allow_patterns
            return str(tiny_sdxl)

        monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tiny_sdxl / "model_index.json"))
        return asked

    def test_pins_the_commit_and_takes_one_variant(self, fake):
        source = checkpoint("owner/name", revision="main")
        assert source.provenance == {"source": "owner/name", "revision": "c0ffee"}
        assert fake.revision == "main"
        assert set(fake.patterns) == {
            "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
        }  # fmt: skip
        assert source.module("vae")

    def test_random_weights_fetch_no_weights(self, fake):
        checkpoint("owner/name", weights="random")
        assert not any(pattern.endswith(".safetensors") for pattern in fake.patterns)

    def test_pickles_are_refused_before_they_are_fetched(self, fake):
        fake.files = [
            name for name in self.FILES if not name.startswith("unet/diffusion_pytorch_model.") or name.endswith(".bin")
        ]
        with pytest.raises(UnsupportedError, match="only as a pickle"):
            checkpoint("owner/name")
        assert fake.patterns is None

    def test_not_a_pipeline(self, fake):
        fake.files = ["weights.safetensors"]
        with pytest.raises(UnsupportedError, match=r"no model_index\.json"):
            checkpoint("owner/name")

    def test_out_of_reach(self, monkeypatch):
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError

        def unreachable(*_, **__):
            raise HfHubHTTPError.__mro__[1]("no route to host")

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
        with pytest.raises(UnsupportedError, match="no route to host"):
            hub.fetch("owner/name", None)


def test_resolving_imports_no_torch(tiny_sdxl):
    program = (
        "import sys, pathlib; from exporter.models.resolve import resolve; from exporter.recipe.schema import ModelOptions;"
        "from exporter.families.sdxl import Sdxl; from exporter.families.sd import Sd;"
        f"c = resolve(ModelOptions(source={str(tiny_sdxl)!r}), pathlib.Path()); c.digest('unet'); Sdxl.claims(c.configs);"
        "sys.exit(str({'torch', 'diffusers', 'transformers'} & set(sys.modules)) if 'torch' in sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_architecture_reads():
    for name in architectures.names():
        assert checkpoint(name, weights="random").configs["unet"]["cross_attention_dim"]


def test_a_component_that_is_no_network_and_has_a_tokenizer_reads_texts(tiny_sd, tmp_path):
    shutil.copytree(tiny_sd, tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    shutil.copytree(tmp_path / "model" / "tokenizer", tmp_path / "model" / "processor")
    index["processor"] = ["transformers", "Qwen3VLProcessor"]
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
    found = checkpoint(tmp_path / "model")
    assert [name for name in found.folders if found.reads_texts(name)] == ["tokenizer", "processor"]
    before = found.digest("processor")
    (tmp_path / "model" / "processor" / "chat_template.jinja").write_text("{{ messages }}")
    assert checkpoint(tmp_path / "model").digest("processor") != before


def test_a_variant_that_no_component_has(tiny_sdxl):
    with pytest.raises(RecipeError, match=r"model\.variant: no component of .* has weights of the variant 'fp8'"):
        checkpoint(tiny_sdxl, variant="fp8")
