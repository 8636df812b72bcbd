"""A pipeline that draws nothing without somebody who looks on is not built."""

import diffusers
import pytest

from engines.errors import UnsupportedError
from exporter.families.tracing.pipelines import guarded


def test_one_whose_call_ends_without_its_safety_checker_is_refused():
    with pytest.raises(UnsupportedError, match="without its safety_checker, which looks at every prompt"):
        guarded.refuse(diffusers.Cosmos2TextToImagePipeline)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline", "HunyuanImagePipeline"])
def test_any_other_is_not(name):
    guarded.refuse(getattr(diffusers, name))
