"""The layout of a bundle's folder, and a draft that says of every file where it lies: of results made by hand."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engines.bundle import Bundle, Tokenizer, write
from engines.strict import Frozen
from exporter.quantization.calibration import Calibration, Spec
from exporter.recipe.schema import Recipe
from exporter.reference.recording import RecordingFolder
from exporter.stages.assemble import Contents, PartContents, lay_out
from exporter.stages.engines import BuiltEngine
from exporter.stages.export import GraphFiles, PartOutputs
from exporter.stages.quantize import CalibrationFile
from exporter.stages.tables import ProcessFile, SamplerFile, TokenizerFiles
from tests.engines import small

RECIPE = """\
model: {source: nowhere/nothing}
sampler: {steps: [4, 2], guidance: {mode: classifier_free, scale: 2.0}}
shapes: {height: [16, 32, 64], width: [16, 48, 64], batch: [1, 1, 2]}
components: {vae_decoder: {tile: {size: 8, overlap: 2}}}
checks: {limits: {image: 20.0}}
low_memory: true
"""


class Backend(Frozen):
    """A backend that is never asked to build."""

    opset: int = 20
    threads: int = 3
    version: str = "9.9"


def folder(root):
    """A new one."""
    where = root / str(next(NUMBERS))
    where.mkdir(parents=True)
    return where


NUMBERS = itertools.count()


class Shelf:
    """Results of stages in folders below one root."""

    def __init__(self, root):
        self.root = root
        parts = small.draft().parts
        self.family = SimpleNamespace(
            recipe=Recipe.parse(RECIPE, "shelf"),
            checkpoint=SimpleNamespace(provenance={"source": "nowhere/nothing", "revision": "c0ffee"}),
            guidance=small.draft().guidance,
            inputs={},
            noise_order=(),
            start_order={},
            partial_step="dropped",
            roles={name: part.role for name, part in parts.items()},
        )
        self.signatures = {name: part.signature for name, part in parts.items()}
        self.signatures["pipeline_2"] = small.fused()["parts"]["pipeline_2"].signature

    def graph(self, name, *, weights=True, **facts):
        made = GraphFiles(folder(self.root), name)
        made.file.write_text(f"graph {name}")
        if weights:
            made.file.with_name(f"{name}.onnx.data").write_text(f"weights of {name}")
        made.tell({"nodes": 5, "nodes_exported": 9, "precision": "fp32", "parameters": 7} | facts)
        return made

    def engine(self, name, target, *files):
        built = BuiltEngine(folder(self.root))
        for file in files:
            (built.folder / file).write_text(f"{target} of {name}")
        return built

    def part(self, name, **more):
        fields = {"signature": self.signatures[name], "graphs": {20: self.graph(name)}}
        fields["engines"] = {"onnxruntime": (Backend(), self.engine(name, "onnxruntime"))}
        return PartContents(**fields | more)

    def outputs(self, name):
        made = PartOutputs(folder(self.root), name)
        made.file.write_text(f"outputs of {name}")
        return made

    def tokenizer(self):
        made = TokenizerFiles(folder(self.root), "tokenizer")
        made.write(Tokenizer(file="yet.json", length=small.LENGTH, feeds="tokenizer_ids"), small.tokenizer_json())
        return made

    def sampler(self, steps, size=(None, None)):
        table, (height, width) = small.table(steps), size
        provenance = table.provenance.model_copy(update={"height": height, "width": width})
        made = SamplerFile(folder(self.root), f"{steps}.json")
        table.model_copy(update={"provenance": provenance}).dump(made.file)
        return steps, made, {}

    def process(self):
        made = ProcessFile(folder(self.root))
        small.process().dump(made.folder / "process.json")
        return made

    def recording(self):
        made = RecordingFolder(folder(self.root))
        for number in (1, 0):
            np.savez(made.folder / f"run_{number}.npz", x=np.zeros(1))
        return made

    def changed(self, **fields):
        """All of it, with another UNet."""
        made = self.contents()
        return replace(made, parts={**made.parts, "unet": replace(made.parts["unet"], **fields)})

    def contents(self, **more):
        fields = {
            "family": self.family, "tokenizers": {"tokenizer": self.tokenizer()}, "process": self.process(),
            "samplers": [self.sampler(steps) for steps in self.family.recipe.sampler.steps],
            "parts": {name: self.part(name) for name in self.family.roles}, "pipelines": {}, "recording": None,
            "ranges": {}, "metadata": {}, "notes": ["a note"],
        }  # fmt: skip
        return Contents(**fields | more)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "store")


@pytest.fixture
def out(tmp_path):
    return folder(tmp_path)


def files(out):
    return {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}


def test_every_file_has_its_place_and_the_draft_names_it(shelf, out):
    draft = lay_out(shelf.contents(), out)
    assert files(out) == {
        *(f"onnx/opset20/{name}.onnx" for name in shelf.family.roles),
        *(f"onnx/opset20/{name}.onnx.data" for name in shelf.family.roles),
        "samplers/2.json", "samplers/4.json", "samplers/process.json", "tokenizers/tokenizer.json",
    }  # fmt: skip
    assert draft.named() == files(out)
    assert (out / "onnx/opset20/unet.onnx").read_text() == "graph unet"
    assert draft.tokenizers["tokenizer"].file == "tokenizers/tokenizer.json"


def test_what_is_laid_out_is_a_bundle(shelf, out):
    write(out, lay_out(shelf.contents(), out))
    assert Bundle.open(out).manifest.name == "shelf"


def test_the_draft_says_what_the_recipe_and_the_model_say(shelf, out):
    draft = lay_out(shelf.contents(), out)
    assert draft.recipe == shelf.family.recipe.text
    assert draft.source == {"source": "nowhere/nothing", "revision": "c0ffee"}
    assert draft.defaults.model_dump(exclude={"generator"}) == {"height": 32, "width": 48, "steps": 4}
    assert draft.limits == {"image": 20.0}
    assert (draft.low_memory, draft.notes) == (True, ("a note",))
    assert draft.guidance == shelf.family.guidance
    assert {"t2iexport", "torch", "onnx-ir"} <= draft.versions.keys()
    assert draft.parts["vae_decoder"].tile.size == 8
    assert draft.parts["unet"].tile is None


def test_an_engine_says_how_it_was_built_and_what_its_files_are(shelf, out):
    engines = {
        "onnxruntime": (Backend(), shelf.engine("unet", "onnxruntime")),
        "openvino": (Backend(threads=1), shelf.engine("unet", "openvino", "unet.bin", "unet.xml")),
    }
    contents = shelf.changed(engines=engines)
    found = lay_out(contents, out).parts["unet"].engines
    assert found["onnxruntime"].files == ("onnx/opset20/unet.onnx", "onnx/opset20/unet.onnx.data"), "it runs the graph itself"
    assert found["openvino"].files == ("engines/openvino/unet.bin", "engines/openvino/unet.xml")
    assert found["openvino"].options["threads"] == 1
    assert (found["openvino"].opset, found["openvino"].version) == (20, "9.9")
    assert (out / "engines/openvino/unet.xml").read_text() == "openvino of unet"


def test_graphs_of_two_operator_sets_lie_apart(shelf, out):
    engines = {
        "onnxruntime": (Backend(), shelf.engine("unet", "onnxruntime")),
        "other": (Backend(opset=22), shelf.engine("unet", "other")),
    }
    graphs = {20: shelf.graph("unet"), 22: shelf.graph("unet", weights=False, nodes=4, precision="fp16")}
    entry = lay_out(shelf.changed(graphs=graphs, engines=engines), out).parts["unet"]
    assert {opset: (graph.files, graph.nodes, graph.nodes_exported) for opset, graph in entry.onnx.items()} == {
        "20": (("onnx/opset20/unet.onnx", "onnx/opset20/unet.onnx.data"), 5, 9),
        "22": (("onnx/opset22/unet.onnx",), 4, 9),
    }
    assert entry.engines["other"].files == ("onnx/opset22/unet.onnx",)
    assert (entry.precision, entry.parameters) == ("fp16", 7)


def test_a_part_says_what_its_passes_did(shelf, out):
    entry = lay_out(shelf.changed(passes=("prune: x",), remade=True), out).parts["unet"]
    assert (entry.passes, entry.remade) == (("prune: x",), True)
    other = lay_out(Shelf(out.parent / "another").contents(), folder(out.parent)).parts["unet"]
    assert (other.passes, other.remade) == ((), False)


def test_a_quantized_part_travels_with_its_calibration(shelf, out):
    calibration = CalibrationFile(folder(shelf.root), "unet")
    Calibration(
        part="unet", digest="0", format="int8", ranges="max", samples=(), layers={"a": Spec(weights="int8")},
        kept={"b": "why", "c": "why"},
    ).dump(calibration.file)  # fmt: skip
    contents = shelf.changed(graphs={20: shelf.graph("unet", layers=7)}, quantized=("int8", calibration))
    found = lay_out(contents, out).parts["unet"].quantized
    assert (found.format, found.layers, found.quantized, found.kept) == ("int8", 7, 5, ("b", "c"))
    assert found.calibration == "calibration/unet.json"
    assert (out / "calibration/unet.json").read_bytes() == calibration.file.read_bytes()


def test_recordings_travel_with_the_ranges(shelf, out):
    contents = shelf.changed(outputs=shelf.outputs("unet"))
    draft = lay_out(replace(contents, recording=shelf.recording(), ranges={"vae_decoder": 3.5, "unet": 10.0}), out)
    assert draft.recordings == (
        "recordings/run_0.npz", "recordings/run_1.npz", "recordings/unet.npz", "recordings/ranges.json",
    )  # fmt: skip
    assert (out / "recordings/ranges.json").read_text() == '{\n  "unet": 10.0,\n  "vae_decoder": 3.5\n}\n'
    assert set(draft.recordings) <= files(out)


def test_without_a_recording_outputs_do_not_travel(shelf, out):
    contents = shelf.changed(outputs=shelf.outputs("unet"))
    assert lay_out(replace(contents, ranges={"unet": 1.0}), out).recordings == ()
    assert not (out / "recordings").exists()


def test_what_passes_found_out_lies_beside(shelf, out):
    lay_out(shelf.contents(metadata={"unet-prune": {"kept": [1, 2]}, "unet-search": 3}), out)
    assert json.loads((out / "passes/unet-prune.json").read_text()) == {"kept": [1, 2]}
    assert (out / "passes/unet-search.json").read_text() == "3\n"


def test_a_sampler_for_one_size_says_so_in_its_name(shelf, out):
    steps, sized, _ = shelf.sampler(4, (32, 48))
    _, starts, _ = shelf.sampler(3)  # whatever is in it
    samplers = [(steps, sized, {"image": starts, "handover": starts}), shelf.sampler(2)]
    encoder = small.draft(encoder=True).parts["vae_encoder"]
    shelf.family.roles["vae_encoder"] = "encoder"
    shelf.signatures["vae_encoder"] = encoder.signature
    found = lay_out(shelf.contents(samplers=samplers), out).samplers
    assert [(entry.steps, entry.height, entry.width, entry.file, entry.image, entry.handover) for entry in found] == [
        (4, 32, 48, "samplers/4-32x48.json", "samplers/4-32x48-image.json", "samplers/4-32x48-handover.json"),
        (2, None, None, "samplers/2.json", None, None),
    ]


def test_without_a_process_there_is_none(shelf, out):
    draft = lay_out(shelf.contents(process=ProcessFile(folder(shelf.root))), out)
    assert draft.process is None


def test_a_whole_pipeline_shares_the_parts_weights_and_is_as_coarse_as_the_coarsest(shelf, out):
    parts = {
        name: shelf.part(name, engines={}, graphs={20: shelf.graph(name, precision=precision, parameters=number)})
        for name, precision, number in (("text_encoder", "fp32", 1), ("unet", "bf16", 10), ("vae_decoder", "fp16", 100))
    }
    whole = shelf.part("pipeline_2", graphs={20: shelf.graph("pipeline_2", weights=False)})
    contents = shelf.contents(parts=parts, pipelines={"pipeline_2": whole}, samplers=[shelf.sampler(2)])
    shelf.family.recipe = Recipe.parse(RECIPE.replace("[4, 2]", "[2]"), "shelf")
    draft = lay_out(contents, out)
    entry = draft.parts["pipeline_2"]
    assert (entry.role, entry.precision, entry.parameters) == ("pipeline", "bf16", 111)
    assert entry.onnx["20"].files == (
        "onnx/opset20/pipeline_2.onnx",
        *(f"onnx/opset20/{name}.onnx.data" for name in ("text_encoder", "unet", "vae_decoder")),
    )
    assert entry.engines["onnxruntime"].files == entry.onnx["20"].files
    assert list(draft.running()) == ["pipeline_2"]
