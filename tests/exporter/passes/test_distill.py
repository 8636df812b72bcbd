"""Students learn from the right modules, the loss falls, a killed training goes on exactly, and what cannot work is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from engines.errors import DivergenceError, MissingDependency, RecipeError, UnsupportedError
from exporter.models import architectures
from exporter.passes.distill import Distill
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.store import Store
from exporter.training import captioned_images, trainer
from exporter.training.objectives import imitation
from tests.exporter import models
from tests.exporter.lessons import read, rows, train
from tests.exporter.training.objectives.test_features import KINDS


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_the_loss_falls(text, tmp_path, kind):
    # The teacher's weights are random, so that the task would pull the other way.
    weights = {"task": 0, "output": 1, "feature": 1}
    folder = train(read(text, features=kind, steps=10, batch=24, learning_rate=3e-4, weights=weights), tmp_path)
    curve = rows(folder)
    assert [row["step"] for row in curve] == list(range(1, 11))
    assert set(curve[0]) == {"step", "loss", "task", "output", *(["feature"] if kind else [])}
    assert np.mean([row["loss"] for row in curve[-3:]]) < 0.7 * curve[0]["loss"]
    loaded = UNet2DConditionModel.from_pretrained(folder)
    assert loaded.mid_block is None
    assert loaded.dtype == torch.float32


@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "accumulate": 2, "schedule": "cosine", "warmup": 2}], ids=["plain", "all"])
def test_a_killed_training_goes_on_as_if_it_had_not_been(text, tmp_path, monkeypatch, more):
    recipe = read(text, steps=5, **more)
    whole = train(recipe, tmp_path / "whole")
    step = trainer.Training._step

    def killed(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(trainer.Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    (kept,) = (tmp_path / "cut" / "unfinished").iterdir()
    assert (kept / "checkpoint-2").is_dir()
    monkeypatch.setattr(trainer.Training, "_step", step)
    resumed = train(recipe, tmp_path / "cut")
    assert rows(resumed) == rows(whole)
    assert (resumed / "diffusion_pytorch_model.safetensors").read_bytes() == (
        whole / "diffusion_pytorch_model.safetensors"
    ).read_bytes()
    assert not kept.exists()


@pytest.mark.parametrize("more", [{"gradient_checkpointing": True}, {"mixed_precision": "bf16"}], ids=["checkpointing", "bf16"])
def test_less_memory_gives_nearly_the_same_losses(text, tmp_path, more):
    usual, other = (rows(train(read(text, steps=2, **each), tmp_path)) for each in ({}, more))
    assert other[0]["loss"] == pytest.approx(usual[0]["loss"], rel=2e-2)
    assert (other == usual) == ("gradient_checkpointing" in more)


def test_a_build_finds_the_result(text, tmp_path):
    recipe = read(text)
    folder = train(recipe, tmp_path)
    plan, store = Plan(recipe), Store(tmp_path)
    stages = {f"{stage.verb} {stage.subject}": stage for stage in plan.stages}
    assert (
        list(stages).index("encode unet, distill")
        < list(stages).index("pass unet, distill")
        < list(stages).index("record passes")
    )
    assert store.peek(stages["pass unet, distill"].key)
    assert store.folder(stages["pass unet, distill"].key, None) == folder
    assert plan.passes.summaries("unet") == ("prune: a block map", "distill: 4 steps, self_attention")
    found = json.loads((folder / "metadata.json").read_text())
    assert found["notes"][0].startswith(
        "unet: distill: 4 steps, self_attention, mean losses of the first and last 2 steps: loss "
    )


def test_keys_follow_what_is_learned_and_not_how_it_is_watched(text, data, tmp_path):
    def keys(recipe):
        return {f"{s.verb} {s.subject}": s.key.digest for s in Plan(recipe).stages}

    one = keys(read(text))
    watched = keys(read(text, checkpoint_every=7))
    assert watched["pass unet, distill"] == one["pass unet, distill"]
    changed = {name for name, key in keys(read(text, seed=1)).items() if key != one[name]}
    assert "pass unet, distill" in changed
    assert not {"encode unet, distill", "pass unet, prune"} & changed
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in data.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert keys(read(text, data=str(copy)))["pass unet, distill"] == one["pass unet, distill"]
    (copy / "0.txt").write_text("another")
    assert keys(read(text, data=str(copy)))["encode unet, distill"] != one["encode unet, distill"]


@pytest.mark.slow
def test_two_processes_train_one_network(text, tmp_path):
    program = (
        "import sys; from pathlib import Path; from exporter import build; from exporter.stages.store import Store\n"
        "from exporter.recipe.schema import Recipe\n"
        "recipe = Recipe.parse(Path(sys.argv[1]).read_text(), 'taught')\n"
        "build.distill(recipe, Store(Path(sys.argv[2])), lambda *_, **__: None)"
    )
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "recipe.yaml").write_text(text)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, *(str(tmp_path / name) for name in ("program.py", "recipe.yaml", "store"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 0, done.stderr[-3000:]
    folder = train(Recipe.parse(text, "taught"), tmp_path / "store")
    assert len(rows(folder)) == 4
    assert rows(folder) != rows(train(Recipe.parse(text, "taught"), tmp_path / "alone"))


# What cannot work.


def test_a_loss_that_is_not_finite_stops_the_training(text, tmp_path, monkeypatch):
    draw = imitation.Imitation.draw

    def broken(self, share):
        target, *inputs = draw(self, share)
        return target * float("nan") if share == 3 else target, *inputs

    monkeypatch.setattr(imitation.Imitation, "draw", broken)
    with pytest.raises(DivergenceError, match=r"at step 4 the loss is nan.* checkpoint after step 2 is kept") as caught:
        train(read(text, steps=6), tmp_path)
    (kept,) = tmp_path.glob("unfinished/*/checkpoint-2")
    assert str(kept) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "1.png").unlink(), r"distill.data: 1 captions without pictures in .*: 1.txt"),
        (lambda folder: (folder / "1.txt").unlink(), r"1 pictures without captions in .*: 1.png"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "there is no picture"),
        (lambda folder: (folder / "metadata.jsonl").write_text("{"), "line 1, is not JSON"),
        (lambda folder: (folder / "metadata.jsonl").write_text('{"file_name": "1.png"}'), 'must be {"file_name"'),
        (
            lambda folder: (folder / "metadata.jsonl").write_text('{"file_name": "9.png", "text": "x"}'),
            r"without pictures.*9.png",
        ),
        (lambda folder: folder.rename(folder.parent / "datta"), "did you mean"),
    ],
)
def test_pictures_and_captions_belong_together(tmp_path, change, told):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"caption {number}\n")
    assert [picture.caption for picture in captioned_images.pictures(folder, "x")] == ["caption 0", "caption 1"]
    change(folder)
    with pytest.raises(RecipeError, match=told):
        captioned_images.pictures(folder, "components.unet.passes.1.distill.data")


def test_captions_may_stand_in_one_file(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a star"}\n')
    assert [picture.caption for picture in captioned_images.pictures(tmp_path, "x")] == ["a star"]


def test_a_damaged_picture_is_named(text, data, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in data.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "3.png").write_bytes(b"no picture")
    with pytest.raises(UnsupportedError, match=r"3.png is not a whole picture"):
        train(read(text, data=str(copy)), tmp_path / "store")


@pytest.mark.parametrize("kind", ["self_attention", "cross_attention", "feed_forward"])
def test_a_feature_that_the_student_lacks(kind):
    config = dict(models.unet(down_block_types=["DownBlock2D"] * 3, up_block_types=["UpBlock2D"] * 3).config)
    config["mid_block_type"] = None
    with pytest.raises(UnsupportedError, match=f"the student has no {kind}"):
        Distill(data="d", steps=1, features=kind).config(config)
    assert Distill(data="d", steps=1, features="resnet").config(config) == config


def test_guidance_as_an_input_is_refused():
    with pytest.raises(UnsupportedError, match="guidance as an input"):
        Distill(data="d", steps=1).config(architectures.configs("lcm-dreamshaper-v7")["unet"])


def test_a_teacher_of_another_kind_is_refused(text, tiny_sdxl, tmp_path):
    other = models.save_sdxl(tmp_path / "other", decoder=models.vae(scaling_factor=0.5))
    with pytest.raises(UnsupportedError, match=r"another latent space: vae.scaling_factor is 0.5"):
        _ = Plan(read(text, teacher=str(other))).stages
    other = models.save_sdxl(tmp_path / "second")
    file = other / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(UnsupportedError, match="another prediction type"):
        _ = Plan(read(text, teacher=str(other))).stages
    assert Plan(read(text, teacher=str(tiny_sdxl))).stages


def test_a_tracker_that_is_not_installed(text, tmp_path, monkeypatch):
    here = trainer.importlib.util.find_spec
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: None if name == "tensorboard" else here(name))
    with pytest.raises(MissingDependency, match=r"t2iexport\[tensorboard\]"):
        train(read(text, log_with="tensorboard"), tmp_path)


def test_a_recipe_that_trains_nothing(text, tmp_path):
    recipe = Recipe.parse(text, "plain", overrides=["components.unet.passes=[]"])
    with pytest.raises(RecipeError, match="no pass of this recipe trains"):
        train(recipe, tmp_path)


def test_a_denoiser_of_another_class_is_refused_by_name():
    with pytest.raises(UnsupportedError, match=r"distill knows UNet2DConditionModel alone, .* is SD3Transformer2DModel"):
        Distill(data="d", steps=1).config({"_class_name": "SD3Transformer2DModel"})
