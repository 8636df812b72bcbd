"""What the keys hold: every field that a stage reads, and all the code that it runs, whoever changes it."""

import ast
import re
import shutil
from pathlib import Path

import pytest

from exporter.bench import quality_gate, speed_gate
from exporter.recipe.schema import Recipe
from exporter.stages import verdicts
from exporter.stages.closure import PACKAGES, ROOT, Sources
from exporter.stages.plan import Plan
from exporter.stages.source import read
from tests.exporter import lessons, watched

#: Every kind of stage is in one of these.
RECIPES = {
    "trained": """
model: {source: sd-v1-5, weights: random}
sampler: {scheduler: EulerDiscreteScheduler, config: {timestep_spacing: trailing}, steps: [2],
          guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [512, 512, 768], width: [256, 512, 768], batch: [1, 1, 2]}
components:
  text_encoder: {precision: mixed}
  unet: {precision: auto, passes: [prune: {blocks: {mid_block: null}}, distill: {data: DATA, steps: 1}]}
  vae_decoder: {tile: {size: 32, overlap: 8}, passes: [quantize: {format: int8, gate: size}]}
  vae_encoder: {target: {onnxruntime: {threads: 1}}}
checks: {prompts: [a red circle, the blue square], faster_than: {against: diffusers},
         quality: {ssim: {at_least: 0.5, prompts: PROMPTS}}}
""",
    "leaps": """
model: {source: sd-v1-5, weights: random}
sampler: {scheduler: EulerDiscreteScheduler, config: {timestep_spacing: trailing}, steps: [2]}
shapes: {height: [512, 512, 512], width: [512, 512, 512], batch: [1, 1, 1]}
components:
  unet: {passes: [trajectory: {data: DATA, steps: 1, to: 2}]}
  vae_decoder: {passes: [swap: {source: sd-v1-5, weights: random, seed: 1}]}
""",
    "fused": """
model: {source: sd-v1-5, weights: random}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2]}
shapes: {height: [512, 512, 512], width: [512, 512, 512], batch: [1, 1, 1]}
components: {unet: {passes: [sparsify: {}]}}
pipeline: fused
""",
}
VERBS = {"tokenize", "compile", "process", "record", "encode", "play", "pass", "islands", "measure", "export", "calibrate"}
VERBS |= {"quantize", "engine", "rival", "weigh", "unroll", "check", "race", "quality"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    data = lessons.pictures(tmp_path_factory.mktemp("data"))
    (prompts := tmp_path_factory.mktemp("prompts") / "prompts.txt").write_text("a red circle\nthe blue square\n")
    return {name: text.replace("DATA", str(data)).replace("PROMPTS", str(prompts)) for name, text in RECIPES.items()}


@pytest.fixture(scope="module")
def own():
    return Sources()


@pytest.fixture(scope="module")
def stages(texts):
    """Recipe and stage → its makers; of every kind that there is."""
    found = {}
    with watched.makers() as makers:
        for name, text in texts.items():
            plan = Plan(Recipe.parse(text, name))
            last = [verdicts.stage(plan, Path("bundle"))]
            last += [speed_gate.stage(plan, Path("bundle"))] if plan.recipe.checks.faster_than else []
            last += [quality_gate.stage(plan, Path("bundle"))] if plan.recipe.checks.quality else []
            found |= {(name, *stage.name): makers[stage.key.digest] for stage in (*plan.stages, *last)}
    assert {verb for _, verb, _ in found} == VERBS
    return found


@pytest.fixture
def copied(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def modules(root):
    """Name of every module → its file."""
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def functions(text):
    """Functions that stand in a module or a class, as `reach` names them → number and indent of their last statement."""
    for node in ast.parse(text).body:
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef) and (last := inner.body[-1]).lineno > inner.lineno:
                yield f"{node.name}.{inner.name}" if inner is not node else node.name, last.lineno, last.col_offset


def altered(file, text, turn):
    """Put another line into one of a file's functions; its name, or None where there is none."""
    known, lines = list(functions(text)), text.splitlines(keepends=True)
    name, number, indent = known[turn] if len(known) > max(turn, 0) else (None, 0, 0)
    if name:
        lines.insert(number - 1, f"{' ' * indent}_ = 'another line'\n")
    file.write_text("".join(lines))
    return name


def changed(before, after):
    return {(stage, module) for stage in before for module in before[stage] if before[stage][module] != after[stage][module]}


def test_a_changed_line_changes_the_keys_of_those_who_reach_it(stages, own, copied):
    """The first function of every module gets another line, then the last."""
    before = {stage: own.code(who) for stage, who in stages.items()}
    reached = {
        (stage, module, name)
        for stage, who in stages.items()
        for module, statements in own.reach(who).items()
        for statement in statements
        for name in statement.binds
    }
    texts = {name: file.read_text() for name, file in modules(copied).items()}
    for turn in (0, -1):
        picked = {module: altered(file, texts[module], turn) for module, file in modules(copied).items()}
        there = Sources(copied)
        expected = {(stage, module) for stage in stages for module, name in picked.items() if (stage, module, name) in reached}
        assert changed(before, {stage: there.code(who) for stage, who in stages.items()}) == expected
        assert len({module for _, module in expected}) > 40


@pytest.mark.parametrize("module", ["exporter.onnx.export", "exporter.pruning.blocks", "engines.strict", "exporter.cli"])
def test_a_changed_module_changes_no_other_s_part_of_a_key(stages, own, copied, module):
    before = {stage: own.code(who) for stage, who in stages.items()}
    file = modules(copied)[module]
    assert altered(file, file.read_text(), 0)
    there = Sources(copied)
    assert {other for _, other in changed(before, {stage: there.code(who) for stage, who in stages.items()})} <= {module}


def test_comments_and_docstrings_change_no_key(stages, own, copied):
    for file in modules(copied).values():
        text = re.sub(r'(:\n +""")(?=\w)', r"\1Truly: ", file.read_text())
        file.write_text(f"# A remark.\n{text}\n# Another.\n")
    there = Sources(copied)
    assert all(own.code(who) == there.code(who) for who in stages.values())


@pytest.mark.parametrize(
    ("module", "name", "verbs"),
    [
        ("exporter.models.sampler_compat", "trailing", {"play", "pass"}),  # the grid of a teacher's trajectories
        ("exporter.training.batches", "Rows.take", {"play", "pass"}),
        ("exporter.onnx.target_ops", "unread", {"check"}),
        ("exporter.quantization.options", "QuantizeOptions.recorded", {"calibrate", "quantize", "weigh"}),
        ("exporter.pruning.blocks", "whole", {"pass"}),
        # A stage is given a model that was found; a rival, and the source whose pictures are scored, are looked for.
        ("exporter.models.architectures", "FOLDER", {"race", "quality"}),
        ("exporter.graph.fold", "fold", {"export"}),
        ("exporter.graph.deduplicate", "deduplicate", {"export", "unroll"}),
        ("engines.samplers.table", "Table.play", {"compile", "process", "unroll", "engine", "check", "race", "quality"}),
    ],
)
def test_who_reaches_what_somebody_once_forgot(stages, own, module, name, verbs):
    (wanted,) = read(modules(ROOT)[module].read_text()).of(name)
    assert {verb for (_, verb, _), who in stages.items() if wanted in own.reach(who).get(module, ())} == verbs


def test_every_file_of_data_is_read_by_somebody():
    data = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.suffix not in {".py", ".pyc"}]
    sources = {file: read(file.read_text()) for file in modules(ROOT).values()}
    known = {file.parent / name for file, source in sources.items() for each in source.every for name in each.data}
    assert not [file for file in data if file.is_file() and file.name != "py.typed" and not {file, *file.parents} & known]
