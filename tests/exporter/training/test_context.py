"""What a training is given: where its pictures lie, what their encoding depends on, and whom it learns from."""

from types import SimpleNamespace

import pytest

from engines.errors import MachineError, RecipeError
from exporter.families.sdxl import Sdxl
from exporter.recipe.schema import Recipe
from exporter.training import context
from exporter.training.options import Options, Played
from tests.exporter import equality, lessons

TEXT = """
model: {source: x}
sampler: {steps: [2], guidance: {mode: %s}}
shapes: {height: [32, 64, 128], width: [32, 96, 128]}
"""


class Learn(Options):
    pass


def recipe(root, mode="none"):
    return Recipe.parse(TEXT % mode, "x", root)


def test_pictures_beside_the_recipe_come_before_the_working_directory_s(tmp_path, monkeypatch):
    (tmp_path / "beside" / "data").mkdir(parents=True)
    (tmp_path / "cwd" / "data").mkdir(parents=True)
    lessons.pictures(tmp_path / "beside" / "data")
    lessons.pictures(tmp_path / "cwd" / "data")
    (tmp_path / "cwd" / "data" / "0.txt").write_text("of the working directory")
    monkeypatch.chdir(tmp_path / "cwd")
    found = context.found(Learn(data="data", steps=1), recipe(tmp_path / "beside"), "x")
    assert (len(found), found[0].caption) == (6, "the blue square")
    found = context.found(Learn(data="data", steps=1), recipe(tmp_path / "elsewhere"), "x")
    assert found[0].caption == "of the working directory"
    with pytest.raises(RecipeError, match=r"unet\.learn\.data: "):
        context.found(Learn(data="none", steps=1), recipe(tmp_path), "unet.learn")


def test_an_encoding_depends_on_the_typical_size_and_on_what_the_empty_prompt_becomes(tmp_path):
    learn, played = Learn(data="d", steps=1), Played(data="d", steps=1)
    assert context.options(learn, recipe(tmp_path)) == {"size": [64, 96], "guidance": "none"}
    assert context.options(played, recipe(tmp_path)) == {"size": [64, 96], "guidance": "classifier_free"}


def test_a_result_depends_neither_on_checkpoints_nor_on_who_watches():
    one = context.options_of(Learn(data="d", steps=1))
    assert context.options_of(Learn(data="e", steps=1, checkpoint_every=3, log_with="tensorboard")) == one
    assert context.options_of(Learn(data="d", steps=1, batch=3)) != one


def test_families_for_a_teacher(tiny_sdxl):
    family = equality.family(Sdxl, tiny_sdxl)
    steered = context.steered(Played(data="d", steps=1), family)
    assert steered.recipe.sampler.guidance.mode == "classifier_free"
    assert context.steered(Learn(data="d", steps=1), family) is family
    assert context.steered(Played(data="d", steps=1), steered) is steered
    plain = context.plain(steered, steered.checkpoint)
    assert plain.recipe.sampler.guidance.mode == "none"
    assert "guidance_scale" not in [port.name for port in plain.signature("unet").inputs]
    assert plain.signature("unet").port("prompt_embeds").shape[1] == 1
    assert plain.signature(plain.image_encoder).port("image") is not None


def test_a_full_disk_is_told_before_anything_is_encoded(tiny_sdxl, tmp_path, monkeypatch):
    family = equality.family(Sdxl, tiny_sdxl)
    monkeypatch.setattr(context.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    pictures = [SimpleNamespace(caption="a")] * 3
    told = r"data: 3 encoded pictures and captions take 0\.0 GB, and the disk of .* has 0\.0 GB.\n  Take fewer"
    with pytest.raises(MachineError, match=told):
        context.encode(family, family.recipe, pictures, tmp_path, texts=True)
    assert not list(tmp_path.iterdir())


def test_where_modules_came_from_is_what_the_first_pass_that_moved_some_says():
    def step(moved):
        return SimpleNamespace(moved=moved)

    metadata = {name: {name: {"by": name}} for name in ("sparsify", "prune", "later")}
    steps = {
        "sparsify": step(lambda _source, _findings: {}),
        "prune": step(lambda source, metadata: {"a.": f"{source['kind']}.{metadata['by']}"}),
        "later": step(lambda _source, _findings: {"b.": "c."}),
    }
    assert context.came(steps, {"kind": "unet"}, metadata) == {"a.": "unet.prune"}
    assert context.came(steps, {"kind": "unet"}, {"sparsify": metadata["sparsify"]}) == {}


@pytest.mark.parametrize("texts", [True, False])
def test_an_encoding_s_key_names_what_was_read(data, tmp_path, texts):
    names = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "scheduler")
    checkpoint = SimpleNamespace(configs=dict.fromkeys(names), digest=lambda name: f"digest of {name}")
    options, inputs = context.keyed(Learn(data=str(data), steps=1), recipe(tmp_path), checkpoint, "x", texts=texts)
    assert options.pop("guidance") == "none"
    assert options.pop("size") == [64, 96]
    assert set(options) == ({"prompts"} if texts else set())
    assert set(inputs) == {"vae", "pictures", *(("text_encoder", "text_encoder_2", "tokenizer") if texts else ())}
    assert inputs["vae"] == "digest of vae"
