"""A recipe's model with all that is named beside it, in one checkpoint; of configs and headers alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.models import architectures, embeddings
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions

LAYER = "lora_unet_down_blocks_0_attentions_0_proj_in"


def written(file, **shapes):
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, file)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of Stable Diffusion's configs, whose weights nobody reads; beside it a VAE, LoRAs and words."""
    root = tmp_path_factory.mktemp("resolve")
    configs = architectures.configs("sd-v1-5")
    for name in configs.keys() - {"model_index"}:
        (root / "model" / name).mkdir(parents=True)
        kind = {"scheduler": "scheduler_config", "tokenizer": "tokenizer_config"}.get(name, "config")
        (root / "model" / name / f"{kind}.json").write_text(json.dumps(configs[name]))
        if name in {"unet", "vae", "text_encoder"}:
            written(root / "model" / name / "model.safetensors", weight=(1,))
    (root / "model" / "model_index.json").write_text(json.dumps(configs["model_index"]))
    (root / "vae").mkdir()
    (root / "vae" / "config.json").write_text(
        json.dumps(configs["vae"] | {"_class_name": "AutoencoderKL", "norm_num_groups": 16})
    )
    written(root / "vae" / "diffusion_pytorch_model.safetensors", weight=(1,))
    for name in "ab":
        written(root / f"{name}.safetensors", **{f"{LAYER}.lora_down.weight": (1, 320), f"{LAYER}.lora_up.weight": (320, 1)})
    written(root / "cat.safetensors", emb_params=(2, 768))
    written(root / "dog.safetensors", emb_params=(1, 768))
    return root


def found(root, **fields):
    return resolve(ModelOptions.model_validate({"source": "model", **fields}), root)


def test_a_model_alone_is_what_it_is(folder):
    made = found(folder)
    assert dict(made.provenance) == {"source": "model"}
    assert (made.loras, made.embeddings) == ((), ())
    assert made.files["vae"] == (folder / "model/vae/model.safetensors",)


def test_all_that_is_named_is_in_one_checkpoint_numbered_from_one(folder):
    loras = [{"source": "a.safetensors", "scale": 0.5}, {"source": "b.safetensors", "scale": -1}]
    made = found(folder, vae="vae", loras=loras, embeddings=["cat.safetensors", {"source": "dog.safetensors", "token": "<dog>"}])
    assert dict(made.provenance) == {
        "source": "model",
        "vae": "vae",
        "lora 1": "a.safetensors × 0.5",
        "lora 2": "b.safetensors × -1",
        "embedding 1": "cat.safetensors: cat",
        "embedding 2": "dog.safetensors: <dog>",
    }
    assert [(each.file.name, each.scale, set(each.components)) for each in made.loras] == [
        ("a.safetensors", 0.5, {"unet"}),
        ("b.safetensors", -1.0, {"unet"}),
    ]
    assert [(each.word, each.tower, each.count) for each in made.embeddings] == [
        ("cat", "text_encoder", 2),
        ("<dog>", "text_encoder", 1),
    ]
    assert made.files["vae"] == (folder / "vae/diffusion_pytorch_model.safetensors",)
    assert made.configs["vae"]["norm_num_groups"] == 16


def test_each_changes_the_digests_of_what_it_changes_and_no_other(folder):
    plain = found(folder)
    for fields, changed in (
        ({"vae": "vae"}, {"vae"}),
        ({"loras": [{"source": "a.safetensors"}]}, {"unet"}),
        ({"embeddings": ["cat.safetensors"]}, {"text_encoder", "tokenizer"}),
    ):
        other = found(folder, **fields)
        assert {name for name in plain.configs if plain.digest(name) != other.digest(name)} - {"model_index"} == changed


def lora_file(file, **more):
    tensors = {f"{LAYER}.lora_down.weight": np.zeros((1, 320)), f"{LAYER}.lora_up.weight": np.zeros((320, 1)), **more}
    save_file(tensors, file, {"ss_clip_skip": "2"})


def test_words_that_a_lora_brings_along_come_behind_the_recipe_s_own(folder, tmp_path):
    lora_file(tmp_path / "mouse.safetensors", **{"bundle_emb.mouse.emb_params": np.zeros((1, 768))})
    made = found(folder, loras=[{"source": str(tmp_path / "mouse.safetensors")}], embeddings=["cat.safetensors"])
    assert [each.word for each in made.embeddings] == ["cat", "mouse"]
    assert made.provenance["embedding 1"] == "cat.safetensors: cat"
    assert made.provenance["embedding 2"] == "LoRA mouse.safetensors: mouse"


def test_notes_of_every_file_are_kept_in_order(folder, tmp_path, monkeypatch):
    for name in ("first", "second"):
        lora_file(tmp_path / f"{name}.safetensors")
    learned = embeddings.RecipeEmbeddings(notes=("of a word",))
    monkeypatch.setattr(embeddings, "resolve", lambda *_: learned)
    loras = [{"source": str(tmp_path / f"{name}.safetensors")} for name in ("first", "second")]
    first, second, word = found(folder, loras=loras).notes
    assert "LoRA first.safetensors" in first
    assert "LoRA second.safetensors" in second
    assert word == "of a word"


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"source": "nowhere"}, RecipeError, "model.source: 'nowhere'"),
        ({"vae": "nowhere"}, RecipeError, "model.vae: 'nowhere'"),
        ({"loras": [{"source": "a.safetensors"}, {"source": "gone.safetensors"}]}, RecipeError, "model.loras[1]"),
        ({"embeddings": ["gone.safetensors"]}, RecipeError, "model.embeddings[0]"),
        ({"embeddings": ["cat.safetensors", {"source": "dog.safetensors", "token": "cat_1"}]}, RecipeError, "'cat_1' is a word"),
        ({"loras": [{"source": "cat.safetensors"}]}, UnsupportedError, "is a textual inversion, and no LoRA"),
        ({"source": "sd-v1-5", "weights": "random", "vae": "vae"}, RecipeError, "model.vae: the model's weights are random"),
        (
            {"source": "sd-v1-5", "weights": "random", "loras": [{"source": "a.safetensors"}]},
            RecipeError,
            "model.loras: random weights hold nothing",
        ),
        (
            {"source": "sd-v1-5", "weights": "random", "embeddings": ["cat.safetensors"]},
            RecipeError,
            "model.embeddings: to random weights no word",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_line(folder, fields, error, told):
    with pytest.raises(error) as caught:
        found(folder, **fields)
    assert told in str(caught.value)


def test_finding_imports_no_torch(folder):
    program = (
        "import sys, pathlib; from exporter.models.resolve import resolve; from exporter.recipe.schema import ModelOptions;"
        "fields = {'source': 'model', 'vae': 'vae', 'loras': [{'source': 'a.safetensors'}], 'embeddings': ['cat.safetensors']};"
        f"resolve(ModelOptions.model_validate(fields), pathlib.Path({str(folder)!r}));"
        "sys.exit(' '.join(sorted({'torch', 'diffusers', 'transformers', 'onnx'} & sys.modules.keys())) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
