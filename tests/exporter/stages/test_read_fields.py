"""What stages read and run, seen while they are made, is in their keys."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from engines.strict import Frozen
from exporter.families import Driving
from exporter.families.unets.unet import LatentDiffusion
from exporter.onnx import export
from exporter.passes.distill import Distill
from exporter.recipe.schema import Recipe
from exporter.stages.closure import ROOT, Sources
from exporter.stages.plan import Plan
from exporter.stages.source import read
from exporter.stages.stage import Results
from exporter.stages.store import Store
from tests.exporter import lessons, watched

RECIPE = """
model: {source: SOURCE}
sampler:
  scheduler: EulerDiscreteScheduler
  config: {timestep_spacing: trailing}
  steps: [2]
  guidance: {mode: classifier_free, scale: 3.0}
shapes: {height: [16, 32, 48], width: [16, 32, 48], batch: [1, 1, 2]}
components:
  unet: {precision: auto, passes: [prune: {blocks: {mid_block: null}}, distill: {data: DATA, steps: 1}]}
  vae_decoder: {tile: {size: 8, overlap: 4}}
  vae_encoder: {}
checks: {prompts: [a red circle, the blue square]}
"""
#: Every field of a recipe → another valid value of it; by the first that stands here.
CHANGES = {
    "sampler.scheduler": "DDIMScheduler",
    "sampler.config": "{timestep_spacing: leading}",
    "sampler.steps": "[3]",
    "sampler.step": "{s_noise: 0.5}",
    "sampler.timesteps": "[999, 499]",
    "sampler.sigmas": "[14.0, 1.0]",
    "sampler.guidance.mode": None,
    "sampler.guidance": "{mode: none}",
    "sampler.guidance.scale": "4.0",
    "sampler.guidance.rescale": None,
    "sampler.cache": None,
    "sampler.handover": "true",
    "sampler.guidance.pag": "{scale: 2.0, layers: [down_blocks.0]}",
    "sampler.guidance.interval": "[0.0, 0.5]",
    "sampler.guidance.scales": "[3.0, 1.0]",
    "sampler.force": "true",
    "prompts.clip_skip": "1",
    "prompts.chunks": "2",
    "prompts.weights": "a1111",
    "prompts.downweighted": "2",
    "generator": "torch-cpu",
    "shapes.height": "[16, 48, 48]",
    "shapes.width": "[16, 48, 48]",
    "shapes.batch": "[1, 1, 1]",
    "components.unet.precision": "fp16",
    "components.unet.passes": "[prune: {blocks: {mid_block: null}}]",
    "components.unet.target": "{onnxruntime: {threads: 1}}",
    "components.unet.tile": None,
    "components.unet.lora": "{max_rank: 8, slots: 1}",
    "components.vae_decoder.precision": "fp16",
    "components.vae_decoder.passes": "[sparsify: {}]",
    "components.vae_decoder.target": "{onnxruntime: {threads: 1}}",
    "components.vae_decoder.lora": None,
    "components.vae_decoder.tile.size": "12",
    "components.vae_decoder.tile.overlap": "2",
    "components.vae_encoder.precision": "fp16",
    "components.vae_encoder.passes": "[sparsify: {}]",
    "components.vae_encoder.target": "{onnxruntime: {threads: 1}}",
    "components.vae_encoder.tile": None,
    "components.vae_encoder.lora": None,
    "targets": "[{onnxruntime: {threads: 1}}]",
    "pipeline": None,
    "low_memory": "true",
    "checks.prompts": "[a blue square, the red circle]",
    "checks.negative_prompt": "grey",
    "checks.seed": "1",
    "checks.skip": "no time",
    "checks.limits": "{engine: 20}",
    "checks.faster_than": "{against: diffusers}",
    "checks.quality": "{ssim: {at_least: 0.5, prompts: prompts.txt}}",
}


#: Who hands results on, and keeps them.
HANDS = {"exporter.stages.stage", "exporter.stages.store"}
#: Functions whose results the keys hold: properties of plugins, of the family and of the recipe.
VALUES = {
    "runs_on_cpu",
    "driving",
    "fused",
    "guides",
    "purpose",
    "root",
    "source",
    "_one_way",
    "pauses",
    "opens",
    "depth",
    "_played",
}
#: A training reads the recipe for its networks' signatures, and no signature after that.
TRAINING = ("pass", "unet, distill")


class Reached(Exception):  # noqa: N818 - no error
    """What the test is about has happened."""


def leaves(model, path=""):
    """Fields of a recipe and the values in them, by dotted path; models are walked through, and so are dictionaries of them."""
    for name in type(model).model_fields:
        value, here = getattr(model, name), f"{path}.{name}".removeprefix(".")
        inner = {here: value} if isinstance(value, Frozen) else {}
        if isinstance(value, dict) and any(isinstance(each, Frozen) for each in value.values()):
            inner = {f"{here}.{key}": each for key, each in value.items()}
        for place, each in inner.items():
            yield from leaves(each, place)
        if not inner:
            yield model, name, here


@pytest.fixture(scope="module")
def recipe(tiny_sd, tmp_path_factory):
    data = lessons.pictures(tmp_path_factory.mktemp("data"))
    return Recipe.parse(RECIPE.replace("SOURCE", str(tiny_sd)).replace("DATA", str(data)), "read")


@pytest.fixture(scope="module")
def seen(recipe, tmp_path_factory):
    """Stage → fields of the recipe that it read, functions of ours that it ran, its makers, and its folder.

    Exports and trainings are left off as soon as they have all that is theirs to work on: what they do then, they do on that.
    """
    place, found, kept = tmp_path_factory.mktemp("made"), {}, []
    results = Results(Store(place / "store"))
    paths = {(id(model), name): path for model, name, path in leaves(recipe)}
    kinds = {type(model) for model, *_ in leaves(recipe)}
    fields: set[str] = set()

    def told(model, name):
        kept.append(model)  # so that no other model gets its id
        fields.add(paths.get((id(model), name)) or f"{type(model).__name__}.{name}")

    def stop(*_, **__):
        raise Reached

    with watched.makers() as makers, pytest.MonkeyPatch.context() as patch:
        stages = [
            stage for stage in Plan(recipe).stages if stage.verb not in {"engine", "rival"}
        ]  # these have a graph and options
        patch.setattr(export, "export", stop)
        patch.setattr(Distill, "teach", stop)
        for stage in stages:
            folder = place / "-".join(stage.name)
            folder.mkdir()
            fields.clear()
            with watched.reading(kinds, told), watched.running() as ran, contextlib.suppress(Reached):
                results.fill(stage, folder)
            found[stage.name] = set(fields), ran, makers[stage.key.digest], folder
            # What training would leave, a network, is here what it would begin with.
            results.put(stage, folder if stage.name != TRAINING else found["pass", "unet, prune"][-1])
    return found


def test_every_field_of_a_recipe_is_changed_here(recipe):
    fields = {path for _, _, path in leaves(recipe) if not path.startswith("model.")}
    assert fields <= CHANGES.keys()


def test_a_model_is_found_while_planning(seen):
    """So that the keys hold the digests of what was found, and a stage needs no field of it."""
    read = {path for fields, *_ in seen.values() for path in fields}
    assert not {path for path in read if path.startswith(("model.", "Model.", "Lora."))}


@pytest.mark.parametrize("field", [field for field, value in CHANGES.items() if value])
def test_recipes_share_no_key_of_a_stage_that_reads_what_differs(recipe, seen, field, tmp_path):
    """Where they do, for a field is read where it decides nothing, what the stage makes is the same to the byte."""
    changed = Recipe.parse(recipe.text, "read", overrides=[f"{field}={CHANGES[field]}"])
    keys, other = ({stage.name: stage for stage in Plan(each).stages} for each in (recipe, changed))
    readers = {name for name, (fields, *_) in seen.items() if any(f"{path}.".startswith(f"{field}.") for path in fields)}
    done, results = {name: folder for name, (*_, folder) in seen.items()}, Results(Store(tmp_path / "store"))
    done[TRAINING] = done["pass", "unet, prune"]
    for name, stage in other.items():
        if name in done:
            results.put(stage, done[name])
    for name in readers - {TRAINING}:
        if name in other and other[name].key.digest == keys[name].key.digest:
            folder = tmp_path / "-".join(name)
            folder.mkdir()
            results.fill(other[name], folder)
            files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
            assert files, name
            assert not [file for file in files if (folder / file).read_bytes() != (done[name] / file).read_bytes()], name


def test_stages_read_fields_at_all(seen):
    read = {name: fields for name, (fields, *_) in seen.items()}
    assert "sampler.step" in read["compile", "2 steps"]
    assert {"checks.seed", "shapes.height"} <= read["record", "source"]


def test_what_a_stage_runs_is_in_its_key(seen):
    """All but what was decided while planning: its results are among the options."""
    own, missing = Sources(), set()
    for name, (_, ran, makers, _) in seen.items():
        reached = own.reach(makers)
        for file, function in ran:
            module = ".".join(Path(file).relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if module in HANDS or (function.split(".")[1:2] and function.split(".")[1] in VALUES):
                continue
            statements = read(Path(file).read_text()).of(function.split(".<locals>")[0])
            if own.file(module) and not set(statements) <= reached.get(module, set()):
                missing.add((name[0], module, function))
    assert not missing, "\n".join(map(str, sorted(missing)))


FLOW = """
model: {source: SOURCE}
sampler:
  {scheduler: FlowMatchEulerDiscreteScheduler, config: {use_dynamic_shifting: true}, steps: [2], force: true}
shapes: {height: [SIZE, SIZE, SIZE], width: [SIZE, SIZE, SIZE], batch: [1, 1, 1]}
"""


def test_a_sampler_whose_times_depend_on_the_size_has_it_in_its_key(tiny_sd, tmp_path, monkeypatch):
    """Families of flow matching have such; of this one the pipeline is made to drive their scheduler."""
    monkeypatch.setattr(LatentDiffusion, "driving", Driving("a pipeline of flow matching"))
    keys, tables = set(), set()
    for size in ("512", "1024"):
        plan = Plan(Recipe.parse(FLOW.replace("SOURCE", str(tiny_sd)).replace("SIZE", size), "flow"))
        stage = plan.tables.samplers[2]
        keys.add(stage.key.digest)
        made = Results(Store(tmp_path / size))[plan.tables.samplers[2]]
        tables.add(json.dumps(json.loads(made.file.read_text())["ops"]))
    assert len(keys) == len(tables) == 2


LEAPS = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, config: {timestep_spacing: trailing, prediction_type: v_prediction}, steps: [2]}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components: {unet: {passes: [trajectory: {data: DATA, steps: 1, to: 2, prediction: v_prediction, teacher: TEACHER}]}}
"""


def keyed(text, *overrides):
    return {stage.name: stage.key.digest for stage in Plan(Recipe.parse(text, "leaps", overrides=overrides)).stages}


def test_the_source_of_a_network_that_learns_to_predict_otherwise_is_recorded_as_what_it_is(tiny_sd, recipe):
    data = recipe.components["unet"].passes[1]["distill"]["data"]
    text = LEAPS.replace("SOURCE", str(tiny_sd)).replace("DATA", data).replace("TEACHER", "null")
    # Without the pass the recipe says that the source itself predicts velocity.
    assert keyed(text)["record", "source"] != keyed(text, "components.unet.passes=[]")["record", "source"]


def test_a_student_s_own_schedule_is_in_its_keys_beside_its_teacher_s(tiny_sd, recipe, tmp_path):
    other = shutil.copytree(tiny_sd, tmp_path / "other")
    file = other / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"beta_end": 0.02}))
    data = recipe.components["unet"].passes[1]["distill"]["data"]
    text = LEAPS.replace("DATA", data).replace("TEACHER", str(tiny_sd))
    one, two = (keyed(text.replace("SOURCE", str(source))) for source in (tiny_sd, other))
    assert one["encode", "unet, trajectory"] == two["encode", "unet, trajectory"]
    for verb in ("play", "pass"):
        assert one[verb, "unet, trajectory"] != two[verb, "unet, trajectory"]
