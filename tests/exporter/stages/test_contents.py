"""What goes into a bundle, of what the stages made: engines that were kept, sentences in order, and nothing twice."""

import json

import pytest

from exporter.quantization.calibration import Calibration, Spec
from exporter.stages import quantize
from exporter.stages.contents import opened
from exporter.stages.stage import Results
from exporter.stages.store import Store
from tests.engines import small
from tests.exporter.stages.planned import plan

PRUNE = "components.unet.passes=[{prune: {blocks: {mid_block: null}}}]"
FIXED = "shapes.batch=[1, 1, 1]", "shapes.height=[512, 512, 512]", "shapes.width=[512, 512, 512]"


class Made(Results):
    """Every stage's folder, empty but for what a test writes into it; none is made."""

    def __init__(self, root, chosen):
        super().__init__(Store(root / "store"))
        for stage in chosen.stages:
            folder = root / f"{stage.verb} {stage.subject}"
            folder.mkdir()
            self.put(stage, folder)
            if stage.verb in {"export", "quantize"}:
                self.write(stage, "facts.json", {})

    def write(self, stage, name, content):
        (self.folder(stage) / name).write_text(content if isinstance(content, str) else json.dumps(content))


def make(tmp_path, *overrides, ranges=None):
    chosen = plan(*overrides)
    results = Made(tmp_path, chosen)
    for recording in {chosen.recorded, chosen.reference} - {None}:
        results.write(recording, "ranges.json", ranges or {"unet": 10.0})
    return chosen, results


def folders(stages):
    return {key: made.folder.name for key, made in stages.items()}


def test_of_a_plain_recipe_all_that_was_made_is_there(tmp_path):
    chosen, results = make(tmp_path, "components.vae_encoder={}")
    found = opened(chosen, results)
    assert found.family is chosen.family
    assert folders(found.tokenizers) == {"tokenizer": "tokenize tokenizer"}
    assert [(steps, table.folder.name, further["image"].folder.name) for steps, table, further in found.samplers] == [
        (steps, f"compile {steps} steps", f"compile {steps} steps from an image") for steps in (2, 4)
    ]
    assert found.process.folder.name == "process scheduler"
    assert list(found.parts) == list(chosen.family.roles), "in the order in which they run"
    unet = found.parts["unet"]
    assert folders(unet.graphs) == {20: "export unet, opset 20"}
    ((target, (backend, built)),) = unet.engines.items()
    assert (target, backend, built.folder.name) == (
        "onnxruntime",
        chosen.targets["unet"]["onnxruntime"],
        "engine unet, onnxruntime",
    )
    assert unet.outputs.folder.name == "measure unet"
    assert (unet.passes, unet.remade, unet.quantized) == ((), False, None)
    assert unet.signature == chosen.family.signature("unet")
    assert found.recording.folder.name == "record source"
    assert (found.ranges, found.metadata, found.pipelines) == ({"unet": 10.0}, {}, {})
    assert found.notes == list(chosen.notes)


def test_without_an_encoder_no_sampler_starts_from_an_image(tmp_path):
    found = opened(*make(tmp_path))
    assert [further for *_, further in found.samplers] == [{}, {}]


def test_without_checks_nothing_was_recorded(tmp_path):
    found = opened(*make(tmp_path, "checks.skip=no time"))
    assert (found.recording, found.ranges) == (None, {})
    assert found.parts["unet"].outputs is None


def test_a_network_that_a_pass_made_is_named_and_says_what_it_found(tmp_path):
    chosen, results = make(tmp_path, PRUNE)
    told = {"notes": ["unet: pruned"], "metadata": {"prune": {"kept": 3}}}
    results.write(chosen.networks.of["unet"]["prune"], "metadata.json", told)
    found = opened(chosen, results)
    assert found.parts["unet"].remade
    assert found.parts["unet"].passes == chosen.passes.summaries("unet") != ()
    assert not found.parts["vae_decoder"].remade
    assert found.metadata == {"unet-prune": {"kept": 3}}
    assert found.notes[len(chosen.notes) :] == [
        "unet: pruned",
        "end to end is held to the source pipeline with unet as the passes made it",
    ]
    assert found.recording.folder.name == "record passes"


def test_made_networks_without_a_recording_are_held_to_nothing(tmp_path):
    chosen, results = make(tmp_path, PRUNE, "checks.skip=no time")
    results.write(chosen.networks.of["unet"]["prune"], "metadata.json", {"notes": [], "metadata": {}})
    assert opened(chosen, results).notes == list(chosen.notes)


def test_a_part_with_islands_says_what_stays_in_half(tmp_path):
    chosen, results = make(tmp_path, "components.unet.precision=mixed", ranges={"unet": 7e4, "vae_decoder": 3.0})
    told = {"steps": ["a", "b"], "products": 0.1, "weights": 0.2, "largest": 7e4, "left": 500.0, "modules": ["mid"]}
    results.write(chosen.parts["unet"].precision.islands, "islands.json", told)
    found = opened(chosen, results)
    assert found.ranges == {"unet": 500.0, "vae_decoder": 3.0}
    assert found.notes[-1].startswith("unet: 2 steps compute in fp32 within fp16, 10.0% of the multiplications with 20.0% of")


@pytest.fixture
def weighed(tmp_path):
    """A quantized decoder: `kept` or not; asked for with 8 bits for the rest or without."""

    def weigh(*, kept, rest="none", names=("conv_in", "conv_out")):
        options = f"{{format: int4-weights, gate: size, rest: {rest}}}"
        chosen, results = make(tmp_path, f"components.vae_decoder.passes=[{{quantize: {options}}}]")
        part = chosen.parts["vae_decoder"].quantized
        decision = {"kept": kept, "notes": ["vae_decoder: smaller"]}
        results.write(part.gate, quantize._GATE, decision)
        Calibration(
            part="vae_decoder", digest="0", format="int4-weights", ranges="max", samples=(), kept=dict.fromkeys(names, "why"),
            layers={"conv_in": Spec(weights="int8"), "mid": Spec(weights="int4")},
        ).dump(results.folder(part.calibrations[20]) / "calibration.json")  # fmt: skip
        return opened(chosen, results)

    return weigh


def test_a_quantized_part_that_is_kept_has_its_graphs_engines_and_calibration(weighed):
    found = weighed(kept=True)
    part = found.parts["vae_decoder"]
    assert folders(part.graphs) == {20: "quantize vae_decoder, opset 20"}
    assert part.engines["onnxruntime"][1].folder.name == "engine vae_decoder, onnxruntime"
    form, calibration = part.quantized
    assert (form, calibration.folder.name) == ("int4-weights", "calibrate vae_decoder, opset 20")
    assert found.notes[-1] == "vae_decoder: smaller"


def test_one_that_is_not_kept_has_the_unquantized_ones(weighed):
    part = weighed(kept=False, rest="int8-weights").parts["vae_decoder"]
    assert folders(part.graphs) == {20: "export vae_decoder, opset 20"}
    assert part.engines["onnxruntime"][1].folder.name == "rival vae_decoder, onnxruntime"
    assert part.quantized is None


@pytest.mark.parametrize("kept", [True, False])
def test_layers_that_stay_in_8_bits_are_counted_where_the_part_is_kept(weighed, kept):
    notes = weighed(kept=kept, rest="int8-weights").notes
    said = "vae_decoder: 1 of the 2 layers that stay have weights in 8 bits; the calibration says why"
    assert (notes[-1] == said) == kept
    assert notes.count(said) == kept


def test_a_fused_pipeline_has_the_engines_and_parts_have_graphs(tmp_path):
    chosen, results = make(tmp_path, "pipeline=fused", *FIXED)
    for steps, stage in chosen.tables.samplers.items():
        small.table(steps, draws=3).dump(results.folder(stage) / f"{steps}.json")
    found = opened(chosen, results)
    assert list(found.pipelines) == ["pipeline_2", "pipeline_4"]
    whole = found.pipelines["pipeline_4"]
    assert whole.signature.port("noise").shape[1] == 3
    assert folders(whole.graphs) == {20: "unroll pipeline_4, opset 20"}
    assert whole.engines["onnxruntime"][1].folder.name == "engine pipeline_4, onnxruntime"
    assert all(part.engines == {} for part in found.parts.values())
