"""Bundles that earlier versions wrote, as they wrote them: they open, and make the pictures that they made then."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import FORMAT, Bundle, draft, write
from engines.errors import BundleError
from engines.guidance import Guidance
from engines.pipeline import Pipeline
from engines.upgrade import upgraded
from tests.engines import small
from tests.engines.images.test_init_image import image

RECORDED = Path(__file__).parent / "recorded"
#: Of the picture below, made by the version that wrote the bundle; all three have the same networks.
PIXELS = "ebbf4f6a9c86d220bef31bd61c5caf1ab18a1145df9cae8b852e6e59b0b65dcf"
#: What that version said the model was; format 1 did not say.
MODEL = "776fb4154b1a935bb72bfd466ac6ff1f9b53864c8875b5cbdd1e1d951f0e3c67"


@pytest.fixture(params=[1, 2, 3])
def recorded(request, tmp_path):
    shutil.copytree(RECORDED / f"format_{request.param}", tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def drawn(bundle):
    (made,) = Pipeline(bundle, small.networks(bundle)).generate("a red square", negative_prompt="sea", seed=7, guidance_scale=3.5)
    return hashlib.sha256(np.asarray(made).tobytes()).hexdigest()


def test_it_opens_and_makes_the_picture_of_then(recorded):
    recorded.verify()
    assert recorded.manifest.guidance == Guidance.of("classifier_free", 2.0)
    assert recorded.manifest.inputs == {}
    assert recorded.manifest.defaults.generator == "numpy"
    assert drawn(recorded) == PIXELS


def test_written_again_it_is_the_same_model_in_the_newest_format(recorded):
    before = recorded.manifest
    again = write(recorded.folder, draft(before))
    assert (before.format < FORMAT, again.manifest.format) == (True, FORMAT)
    assert again.manifest.model == before.model
    assert drawn(again) == PIXELS


@pytest.mark.parametrize("number", [2, 3])
def test_a_picture_of_then_is_still_of_this_bundle(number):
    bundle = Bundle.open(RECORDED / f"format_{number}")
    assert bundle.manifest.model == MODEL
    pipeline = Pipeline(bundle, small.networks(bundle))
    assert pipeline.generate("a", image=image(), strength=0.5)[0].info["digest"] == MODEL


@pytest.mark.parametrize("mode", ["none", "embedded"])
def test_other_guidance_of_then(mode):
    scale = {} if mode == "none" else {"scale": 3.0}
    guidance = upgraded({"format": 3, "guidance": {"mode": mode, **scale}})["guidance"]
    assert Guidance.model_validate(guidance) == Guidance.of(mode, scale.get("scale"))


@pytest.mark.parametrize(
    "guidance", [None, 3, [], {"mode": "nods", "scale": "x"}, {"mode": "none", "scale": 1.0}, {"surplus": 1}]
)
def test_what_is_odd_is_refused_and_no_traceback(tmp_path, guidance):
    shutil.copytree(RECORDED / "format_3", tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    content = {**json.loads(path.read_text()), "guidance": guidance}
    content.pop("digest")
    content["digest"] = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="guidance"):
        Bundle.open(tmp_path / "bundle")
