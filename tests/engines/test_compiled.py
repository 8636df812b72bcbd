from types import SimpleNamespace

import pytest
from PIL import Image

from engines.compiled import CompiledSamplers
from engines.errors import BundleError, UnsupportedError
from engines.images.init_image import InitImage
from engines.samplers.table import Starts
from tests.engines import small


def test_a_sampler_is_read_once_for_each_start(tmp_path):
    samplers = CompiledSamplers(small.make(tmp_path / "small", encoder=True))
    image = Image.new("RGB", (32, 32))
    whole, half = (InitImage.of(image, strength=strength) for strength in (1.0, 0.5))
    inside = InitImage.of(image, Image.new("L", (32, 32), 255))
    wishes = [(2, 32, 32), (4, 64, 32), (2, 32, 32, whole), (2, 32, 32, half), (2, 32, 32, inside)]
    found = [samplers.load(*wish) for wish in wishes]
    assert len({id(one) for one in found}) == len(wishes)
    assert [samplers.load(*wish) for wish in wishes] == found
    assert all(samplers.load(*wish) is one for wish, one in zip(wishes, found, strict=True))


def test_a_bundle_says_whether_the_step_in_which_a_strength_ends_is_taken(tmp_path):
    image = InitImage.of(Image.new("RGB", (32, 32)), strength=0.7)  # of two steps one and a bit
    found = {}
    for partial in ("dropped", "taken"):
        samplers = CompiledSamplers(small.make(tmp_path / partial, encoder=True, partial_step=partial))
        found[partial] = sum(op.op == "eval" for op in samplers.load(2, 32, 32, image).ops)
    assert found == {"dropped": 1, "taken": 2}


def test_steps_that_are_spread_over_the_strength_are_all_taken(tmp_path):
    bundle = small.make(tmp_path / "spread", encoder=True, partial_step="spread")
    path, read = bundle.path(bundle.manifest.samplers[0].image), []
    whole = Starts.read(path, 2**20)
    spread = whole.model_copy(update={"starts": whole.starts[:1] * 2, "strengths": (0.2, 0.6)})
    samplers = CompiledSamplers(SimpleNamespace(manifest=bundle.manifest, path=lambda _: tmp_path / "spread.json"))
    spread.dump(tmp_path / "spread.json")
    for strength in (0.3, 0.7, 0.7):
        image = InitImage.of(Image.new("RGB", (32, 32)), strength=strength)
        assert image.start(2, "spread") == 0
        read.append(samplers.load(2, 32, 32, image))
    assert read[1] is read[2]
    assert read[0] is not read[1]


def test_what_is_not_there_is_told(tmp_path):
    samplers = CompiledSamplers(small.make(tmp_path / "small"))
    with pytest.raises(UnsupportedError, match="no sampler of 3 steps"):
        samplers.load(3, 32, 32)
    with pytest.raises(UnsupportedError, match="without tables that start from an image"):
        samplers.load(2, 32, 32, InitImage.of(Image.new("RGB", (32, 32))))


def test_a_file_that_is_changed_later_is_still_found_out(tmp_path):
    samplers = CompiledSamplers(small.make(tmp_path / "small"))
    samplers.load(2, 32, 32)
    (tmp_path / "small/samplers/2.json").write_text("{}")
    with pytest.raises(BundleError, match="is damaged"):
        samplers.load(2, 32, 32)
