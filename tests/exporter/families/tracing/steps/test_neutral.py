"""The scale at which a pipeline's own formula does nothing is told from the one at which it leaves guidance out."""

import pytest
from torch import nn

from exporter.families.tracing.facts import Survey
from exporter.families.tracing.steps import neutral
from tools.coverage.models import MADE


@pytest.mark.parametrize(
    ("name", "side", "scales"),
    [("pixart-sigma", 32, (1.0, 1.0)), ("kandinsky3", 64, (1.0, 0.0)), ("flux-guided", 32, (1.0, 1.0))],
)
def test_it_is_read_off_what_two_branches_become(name, side, scales):
    made = MADE[name]()
    for network in made.components.values():
        if isinstance(network, nn.Module):
            network.to("meta")
    survey = Survey(made, {}, "classifier_free", side, side, 2)
    assert (survey.off, neutral.scale(survey)) == scales
