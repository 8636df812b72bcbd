"""The picture shows what the scan wrote down."""

import pytest
from click.testing import CliRunner

from exporter.quantization.calibration import Calibration, Spec
from tools.measure.draw_sensitivity import draw, main

NAMES = ("down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.conv2", "mid_block.attentions.0.proj_in", "node_Conv_1")
FOUND = Calibration(
    part="unet",
    digest="0" * 64,
    format="int8",
    ranges="stepwise",
    samples=("a",),
    layers={name: Spec(weights="int8", activations="int8", range=1.0) for name in NAMES[1:]},
    kept={"conv_in": "first or last, or time embedding", NAMES[0]: "31.0 dB when quantized alone"},
    sensitivity=dict(zip(NAMES, (31.0, 50.0, 70.0, 60.0), strict=True)),
    measured=48.2,
)


def test_groups_in_the_networks_order_and_the_worst_first():
    left, right = draw(FOUND).axes
    rows = ["down_blocks.0.resnets", "mid_block.attentions", "remade by graph passes"]
    assert [label.get_text() for label in left.get_yticklabels()] == rows
    assert left.get_ylim()[0] > left.get_ylim()[1]
    quantized, kept = (collection.get_offsets() for collection in left.collections)
    assert kept[:, 0].tolist() == [31.0]
    assert quantized[:, 0].tolist() == [50.0, 70.0, 60.0]
    assert quantized[:, 1].round().tolist() == [0, 1, 2]
    assert [text.get_text() for text in left.texts] == ["all of it together: 48.2 dB"]
    assert [label.get_text() for label in right.get_yticklabels()] == [NAMES[0], NAMES[1], NAMES[3], NAMES[2]]
    assert [text.get_text() for text in right.texts] == ["31.0", "50.0", "60.0", "70.0"]


def test_weights_in_8_bits_are_a_kind_of_their_own():
    found = FOUND.model_copy(update={"layers": {**FOUND.layers, NAMES[0]: Spec(weights="int8")}})
    left, _ = draw(found).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["quantized: 3 layers", "weights in 8 bits: 1 layers"]


@pytest.mark.parametrize(
    ("changes", "said"), [({"sensitivity": {}}, "neither keep_above nor budget"), ({"format": None}, "not a calibration")]
)
def test_a_calibration_without_a_scan_is_told(tmp_path, changes, said):
    FOUND.model_copy(update=changes).dump(tmp_path / "unet.json")
    done = CliRunner().invoke(main, [str(tmp_path / "unet.json"), str(tmp_path / "x.png")])
    assert done.exit_code == 1
    assert said in done.output
    assert not (tmp_path / "x.png").exists()


def test_a_bundle_is_read_by_its_part(tmp_path):
    (tmp_path / "calibration").mkdir()
    FOUND.dump(tmp_path / "calibration" / "unet.json")
    assert CliRunner().invoke(main, [str(tmp_path), str(tmp_path / "x.png")]).exit_code == 0
    assert (tmp_path / "x.png").stat().st_size > 1000
    done = CliRunner().invoke(main, [str(tmp_path), str(tmp_path / "x.png"), "--part", "vae_decoder"])
    assert "vae_decoder.json is not a file" in done.output
