"""A recipe says everything that is wrong with it at once, and where."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import RecipeError
from exporter.recipe import shipped
from exporter.recipe.schema import Recipe

ROOT = Path(__file__).parents[3]
GOOD = """\
model: {source: somebody/something}
sampler: {steps: [10]}
shapes: {height: [512, 1024, 1024], width: [512, 1024, 1024]}
"""
#: The issue's example.
FULL = """\
model:
  source: etri-vilab/koala-lightning-700m   # hub id, folder, single .safetensors, or an architecture's name
  weights: pretrained
sampler:
  scheduler: EulerDiscreteScheduler
  config: {timestep_spacing: trailing}
  steps: [10]
  guidance: {mode: classifier_free, scale: 3.5}
shapes: {height: [512, 1024, 1024], width: [512, 1024, 1024], batch: [1, 1, 4]}
components:
  unet: {precision: fp16, passes: []}
  vae_decoder: {precision: auto}
targets:
  - onnxruntime
  - tensorrt_rtx: {compute_capabilities: ["8.6", "8.9", "12.0"]}
checks: {}
"""


def problems(text, *overrides):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, "x", overrides=overrides, shown="recipes/x.yaml")
    return list(caught.value.problems)


def test_the_example_loads():
    recipe = Recipe.parse(FULL, "x")
    assert recipe.sampler.guidance.scale == 3.5
    assert recipe.targets == ({"onnxruntime": {}}, {"tensorrt_rtx": {"compute_capabilities": ["8.6", "8.9", "12.0"]}})
    assert (recipe.name, recipe.root, recipe.text) == ("x", Path(), FULL)


def test_every_problem_is_told_at_once_with_its_line():
    text = """\
model:
  source: 3
  wieghts: random
sampler:
  steps: [0, 8, "x", 8.5]
  guidance: {mode: clasifier_free}
  guidance: {}
shapes: {height: [512, 256, 1024], width: [64, 64], batch: 4}
components:
  unet: {precision: fp8, passes: [no_such_pass]}
  vae_decoder: &a {precision: auto}
targets:
  - onnxrutnime
  - onnxruntime: {thread: 4}
  - tensorrt_rtx: {compute_capabilities: ["8.9", "sm120"]}
  - tensorrt_rtx
  - a: 1
    b: 2
checks: {limits: {image: -3}}
colour: red
"""
    found = problems(text)
    expected = [
        "recipes/x.yaml:2  model.source: must be text, not 3",
        "recipes/x.yaml:3  model.wieghts: unknown field; did you mean 'weights'?",
        "recipes/x.yaml:5  sampler.steps[0]: must be at least 1, not 0",
        "recipes/x.yaml:5  sampler.steps[2]: must be a whole number, not 'x'",
        "recipes/x.yaml:5  sampler.steps[3]: must be a whole number, not 8.5",
        "recipes/x.yaml:6  sampler.guidance: stands twice, here and on line 7; keep one",
        "recipes/x.yaml:6  sampler.guidance.mode: must be 'none', 'classifier_free' or 'embedded', not 'clasifier_free'",
        "recipes/x.yaml:8  shapes.height: [512, 256, 1024] must rise: smallest, typical, largest; sorted it is [256, 512, 1024]",
        "recipes/x.yaml:8  shapes.width: has 2 values, [64, 64], and needs more",
        "recipes/x.yaml:8  shapes.batch: must be a list, not 4; write [4]",
        "recipes/x.yaml:10  components.unet.precision: must be 'fp32', 'fp16', 'bf16', 'mixed' or 'auto', not 'fp8'",
        "recipes/x.yaml:11  components.vae_decoder: the anchor &a is not part of a recipe; write the value where it is used",
        "recipes/x.yaml:13  targets[0]: unknown backend 'onnxrutnime'; did you mean 'onnxruntime'?",
        "recipes/x.yaml:16  targets[3]: 'tensorrt_rtx' is named twice; keep one, with all its options",
        "recipes/x.yaml:17  targets[4]: has 2 names; write '- backend' or '- backend: {option: value}', one each",
        "recipes/x.yaml:19  checks.limits.image: must be more than 0.0, not -3",
        (
            "recipes/x.yaml:20  colour: unknown field; there are: model, sampler, prompts, shapes, components, targets, "
            "pipeline, generator, low_memory, checks"
        ),
    ]
    assert [line for line in expected if line not in found] == []
    starts = ["recipes/x.yaml:10  components.unet.passes[0]: unknown pass 'no_such_pass'", "recipes/x.yaml:15  targets[2]."]
    assert all(any(line.startswith(start) for line in found) for start in starts)
    lines = [int(line.partition(":")[2].partition(" ")[0]) for line in found]
    assert lines == sorted(lines)


def test_options_of_a_backend_are_checked_by_the_backend():
    pytest.importorskip("onnxruntime")
    assert problems(f"{GOOD}targets: [onnxruntime: {{thread: 4}}]") == [
        "recipes/x.yaml:4  targets[0].onnxruntime.thread: unknown field; did you mean 'threads'?"
    ]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("openvini", "components.unet.target: unknown backend 'openvini'; did you mean 'openvino'?"),
        ("{openvino: {precison: f32}}", "components.unet.target.openvino.precison: unknown field; did you mean 'precision'?"),
        ("{openvino: {precision: fp32}}", "components.unet.target.openvino.precision: must be 'auto', 'f32', 'bf16' or 'f16'"),
        ("{openvino: 3}", "components.unet.target.openvino: must be a mapping of options, not 3"),
        ("[openvino]", "components.unet.target: is [\"openvino\"]; write 'backend' or 'backend: {option: value}'"),
        ("{openvino: {}, onnxruntime: {}}", "components.unet.target: has 2 names"),
    ],
)
def test_a_target_of_one_component_is_checked_as_a_target_is(target, told):
    (problem,) = problems(f"{GOOD}components: {{unet: {{target: {target}}}}}")
    assert problem.startswith(f"recipes/x.yaml:4  {told}")


def test_a_component_may_name_its_own_target():
    for written, read in (("openvino", {}), ("{openvino: }", {}), ("{openvino: {precision: bf16}}", {"precision": "bf16"})):
        recipe = Recipe.parse(f"{GOOD}components: {{unet: {{target: {written}}}, vae_decoder: {{}}}}", "x")
        assert recipe.components["unet"].target == {"openvino": read}
        assert recipe.components["vae_decoder"].target is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("components: {unet: {precison: fp16}}", "components.unet.precison: unknown field; did you mean 'precision'?"),
        (
            "components: {vae_decoder: {tile: {overlap: 8}}}",
            "components.vae_decoder.tile.size: missing; give it: side of a tile, in cells of the latent",
        ),
    ],
)
def test_a_field_of_one_component_is_told_as_any_other(line, told):
    (problem,) = problems(GOOD + line)
    assert problem.startswith(f"recipes/x.yaml:4  {told}")


def test_an_empty_recipe_is_told_what_it_needs():
    found = problems("# nothing\n")
    assert [line.split("  ")[1].partition(":")[0] for line in found] == ["model", "sampler", "shapes"]
    assert all("missing" in line for line in found)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sampler: {steps: [8, 8]}", "names 8 twice"),
        ("sampler: {steps: []}", "needs at least 1"),
        ("sampler: {steps: 8}", "must be a list, not 8; write [8]"),
        ("sampler: {steps: ['8']}", "must be a whole number, not '8'"),
        ("sampler: {steps: [true]}", "must be a whole number, not true"),
        ("sampler: {steps: [1001]}", "must be at most 1000"),
        ("sampler: {steps: [2], timesteps: [9, 8, 7, 6]}", "set steps: [4]"),
        ("sampler: {steps: [8], guidance: {scale: 3.5}}", "has no effect in mode 'none'"),
        ("sampler: {steps: [8], guidance: {mode: embedded}}", "needs a scale"),
        ("sampler: {steps: [8], step: {eta: .nan}}", "is not a number that a recipe can hold"),
        ("sampler: [1]", "must be a mapping, not [1]"),
        ("targets: []", "needs at least 1"),
        ("targets: onnxruntime", "must be a list"),
        ("targets: [{}]", "has 0 names"),
        ("targets: [3]", "is 3; write '- backend'"),
        ("targets: [onnxruntime: 4]", "must be a mapping of options, not 4"),
        ("checks: {limits: {engin: 3}}", "did you mean 'engine'?"),
        ("checks: {prompts: []}", "needs at least 1"),
        ("checks: !!python/name:os.system {}", "the tag tag:yaml.org,2002:python/name:os.system is not part of a recipe"),
        ("<<: {targets: []}", "cannot be a key"),
        ("3: 4", "cannot be a key"),
        ("checks: *nowhere", "undefined alias"),
        ("checks: {", "is not YAML"),
        ("---\na: 1", "is not YAML"),
        ("checks: '\x01'", "is not YAML"),
        ("name: x", "unknown field"),
        ("_origin: x", "unknown field"),
    ],
)
def test_one_problem_is_one_plain_sentence(line, told):
    key = line.partition(":")[0]
    text = "\n".join([*(kept for kept in GOOD.splitlines() if not kept.startswith(f"{key}:")), line])
    assert any(told in problem for problem in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("line", "overrides", "told"),
    [
        ("sampler: {steps: [.nan]}", (), [r"sampler.steps[0]: .nan is not a number that a recipe can hold"]),
        ("sampler: {steps: [8], guidance: {mode: classifier_free, scale: .inf}}", (), ["sampler.guidance.scale: .inf is not a"]),
        ("sampler: {steps: [8], guidance: {rescale: 2, scale: .nan}}", (), ["scale: .nan is not", "rescale: must be at most 1"]),
        (
            "sampler: {steps: [8], guidence: {scale: .nan}}",
            (),
            ["guidence.scale: .nan is not a", "unknown field; did you mean 'guidance'"],
        ),
        ("checks: {seed: -.inf, prompts: []}", (), ["checks.seed: -.inf is not a", "checks.prompts: has 0 values"]),
        ("checks: !!python/name:os.system {}", (), ["checks: the tag tag:yaml.org,2002:python/name:os.system is not"]),
        ("checks: {}", ("checks.seed=.nan",), ["--set checks.seed=.nan:  its value .nan is not"]),
        ("checks: {seed: .nan}", ("checks.seed=x",), ["checks.seed: must be a whole number", "checks.seed: .nan is not"]),
    ],
)
def test_a_value_that_cannot_be_read_is_one_problem(line, overrides, told):
    key = line.partition(":")[0]
    text = "\n".join([*(kept for kept in GOOD.splitlines() if not kept.startswith(f"{key}:")), line])
    found = problems(text, *overrides)
    assert len(found) == len(told), found
    assert all(any(each in problem for problem in found) for each in told), found


@pytest.mark.timeout(20)
def test_hostile_yaml_is_a_problem_and_not_a_crash():
    bomb = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
    assert any("anchor" in problem for problem in problems(bomb))
    assert any("anchor" in problem for problem in problems("a: &a [*a]"))
    for nested in ("[" * 900, "- " * 900, "? " * 900, "{a: " * 900):
        assert "nested" in problems(nested)[0]
    assert "a page" in problems("[" * 5000)[0]
    assert "a page" in problems("#" * 2**21)[0]
    assert "must be a mapping" in problems("- 1")[0]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_any_text_loads_or_is_a_recipe_error(text):
    for whole in (text, GOOD + text, GOOD.replace("10", text)):
        with contextlib.suppress(RecipeError):
            Recipe.parse(whole, "x")


def test_overrides_change_values_and_are_kept_in_the_text():
    changes = ("sampler.steps[0]=4", "components.unet.precision=bf16", "model.seed=7", "model.source='1e3'")
    recipe = Recipe.parse(GOOD, "x", Path("recipes"), overrides=changes)
    assert (recipe.sampler.steps, recipe.components["unet"].precision, recipe.model.seed) == ((4,), "bf16", 7)
    assert recipe.model.source == "1e3"
    assert recipe.text.startswith("# x.yaml with --set sampler.steps[0]=4 --set ")
    assert Recipe.parse(recipe.text, "x", Path("recipes")) == recipe
    assert Recipe.parse(GOOD, "x") != recipe


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sampler.steps=[0]", "--set sampler.steps=[0]:  sampler.steps[0]: must be at least 1, not 0"),
        ("sampler.setps=[1]", "--set sampler.setps=[1]:  sampler.setps: unknown field; did you mean 'steps'?"),
        ("targets[3].x=1", "--set targets[3].x=1:  targets is not a list"),
        ("sampler.steps[3]=1", "--set sampler.steps[3]=1:  sampler.steps has 1 entries, counted from [0]"),
        ("sampler.steps.x=1", "--set sampler.steps.x=1:  sampler.steps is not a mapping"),
        ("sampler.steps", "--set sampler.steps:  must read path.to.field=value, such as sampler.steps=[8]"),
        ("sampler steps=3", "--set sampler steps=3:  must read path.to.field=value, such as sampler.steps=[8]"),
        ("sampler.steps=[8", "--set sampler.steps=[8:  its value is not YAML: "),
    ],
)
def test_an_override_is_named_by_its_own_problems(override, told):
    assert any(problem.startswith(told) for problem in problems(GOOD, override)), problems(GOOD, override)


def test_a_missing_file_says_what_there_is(tmp_path):
    (tmp_path / "koala.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match=r"kola\.yaml  is not a file; did you mean '.*koala\.yaml'"):
        Recipe.load(tmp_path / "kola.yaml")
    with pytest.raises(RecipeError, match="is not a file"):
        Recipe.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff")
    with pytest.raises(RecipeError, match="save it as UTF-8"):
        Recipe.load(tmp_path / "latin.yaml")


def test_later_problems_get_their_line():
    recipe = Recipe.parse(FULL, "x", shown="x.yaml")
    told = recipe.located(["components.unet: this model has none", "shapes.height[1]: 7 px", "no such thing: x", "plain"])
    assert told == [
        "x.yaml:11  components.unet: this model has none",
        "x.yaml:9  shapes.height[1]: 7 px",
        "no such thing: x",
        "plain",
    ]
    assert recipe.located(told) == told


@pytest.mark.parametrize("path", shipped.recipes().values(), ids=lambda path: path.stem)
def test_every_recipe_loads_and_survives_its_text(path):
    recipe = Recipe.load(path)
    assert Recipe.parse(recipe.text, recipe.name, recipe.root) == recipe
    assert path.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n")


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ("{steps: [3], sigmas: [9.0, 3.0, 0.5, 0.0], timesteps: [999, 500, 1]}", "both timesteps and sigmas"),
        ("{steps: [4], sigmas: [9.0, 3.0]}", "sigmas has 2 noise levels, but steps is [4]; set steps: [2]"),
        ("{steps: [5], sigmas: [9.0, 3.0, 0.0]}", "sigmas has 3 noise levels, but steps is [5]; set steps: [2]"),
        ("{steps: [2], sigmas: [9.0, -3.0]}", "must be at least 0"),
        ("{steps: [2], guidance: {mode: none, rescale: 0.7}}", "rescale 0.7 has no effect in mode 'none'"),
        ("{steps: [2], guidance: {mode: classifier_free, scale: 3.0, rescale: 1.7}}", "must be at most 1"),
    ],
)
def test_own_noise_levels_and_rescaled_guidance_are_checked(sampler, words):
    assert words in "\n".join(problems(GOOD.replace("{steps: [10]}", sampler)))


def test_what_a_pipeline_is_asked_for_is_what_the_recipe_says():
    text = "{steps: [3], sigmas: [9, 3.0, 0.5, 0.0], guidance: {mode: classifier_free, scale: 3.0, rescale: 0.7}}"
    sampler = Recipe.parse(GOOD.replace("{steps: [10]}", text), "x").sampler
    assert sampler.asked() == {"sigmas": [9.0, 3.0, 0.5, 0.0], "guidance_rescale": 0.7}
    assert Recipe.parse(GOOD, "x").sampler.asked() == {}
