"""What tests of one survey share."""

import pytest

from tools.coverage.models import MADE


@pytest.fixture(scope="module")
def pipeline():
    """FLUX.1 that is guided by two calls a step, its networks without memory."""
    made = MADE["flux-guided"]()
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(made, name).to("meta")
    return made
