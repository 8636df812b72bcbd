"""Two bundles side by side, of small real graphs."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines.errors import BundleError
from engines.guidance import Guidance
from exporter import cli
from exporter.sweep import diff
from tests.engines import small
from tests.engines.test_real_engines import graphs

pytest.importorskip("onnxruntime")
RECIPE = "sampler: {guidance: {scale: %d}}\nchecks: {prompts: [a red square, the sea]}\n"


@pytest.fixture
def pair(tmp_path):
    for name, scale in (("one", 2), ("other", 5)):
        guidance = Guidance.of("classifier_free", scale)
        small.make(tmp_path / name, graphs=graphs(), recipe=RECIPE % scale, guidance=guidance)
    return tmp_path / "one", tmp_path / "other"


def test_what_differs_is_told(pair):
    facts, pictures = diff.diff(*pair, rounds=1)
    assert facts["recipe, one → other"] == ["sampler.guidance.scale 2 → 5"]
    both = {row[""]: row for row in facts["both"]}
    assert (both["steps"]["one"], both["steps"]["other"], both["steps"]["ratio"]) == ("2", "2", "1")
    assert both["MB"]["ratio"] == "1"
    assert float(both["ms a picture"]["one"]) > 0
    assert [row["part"] for row in facts["parts"]] == ["text_encoder", "unet", "vae_decoder"]
    assert [row["prompt"] for row in facts["pictures, same noise"]] == ["a red square", "the sea"]
    assert 5 < float(facts["pictures, same noise"][0]["PSNR"].removesuffix(" dB")) < 100
    assert np.any(np.asarray(pictures[0].one) != np.asarray(pictures[0].other))


def test_a_bundle_is_itself(pair):
    facts, _ = diff.diff(pair[0], pair[0], rounds=1)
    assert facts["recipe, one → other"] == ["the same"]
    assert {row["PSNR"] for row in facts["pictures, same noise"]} == {"exact"}


def test_pictures_of_two_sizes_are_not_compared():
    drawn = diff.DrawnPair("a sea", Image.new("RGB", (8, 8)), Image.new("RGB", (16, 8)))
    assert drawn.row() == {"prompt": "a sea", "not compared": "8 x 8 px and 16 x 8 px"}
    assert diff.sheet([drawn]).size == (3 * 24 + 8, 2 * 24 + 8)


def test_the_sheet_shows_where_they_differ():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    page = np.asarray(diff.sheet([diff.DrawnPair("", grey, Image.new("RGB", (8, 8), (110, 100, 100)))]))
    assert page[28, 8 + 4].tolist() == [100, 100, 100]
    assert page[28, 24 + 4].tolist() == [110, 100, 100]
    assert page[28, 40 + 4].tolist() == [39, 0, 0]  # four times the 10, rounded down


def test_the_command_prints_and_writes_the_pictures(pair, tmp_path):
    done = CliRunner().invoke(cli.verbs, ["diff", *map(str, pair), "--rounds", "1", "-o", str(tmp_path / "sheet.png")])
    assert done.exit_code == 0, done.output
    assert "sampler.guidance.scale 2 → 5" in done.output
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.width > 3 * 32
    with pytest.raises(BundleError, match="is missing"):
        diff.diff(pair[0], tmp_path, rounds=1)
