"""Every objective gives the loop what it asks for."""

import importlib
import inspect
import pkgutil

import pytest

from exporter.training import objectives
from exporter.training.objective import Losses

ASKED = {name for name in vars(Losses) if not name.startswith("_")} - {"frozen", "metadata", "kept"}
FOUND = [
    kind
    for module in pkgutil.iter_modules(objectives.__path__)
    for kind in vars(importlib.import_module(f"{objectives.__name__}.{module.name}")).values()
    if inspect.isclass(kind) and kind.__module__.endswith(f"objectives.{module.name}") and hasattr(kind, "draw")
]


def test_there_are_objectives():
    assert len(FOUND) >= 5
    assert {"settle", "draw", "stepped", "end"} == ASKED


@pytest.mark.parametrize("kind", FOUND, ids=lambda kind: kind.__name__)
def test_an_objective_takes_what_the_loop_gives(kind):
    for name in ASKED:
        own, asked = (list(inspect.signature(getattr(each, name)).parameters.values()) for each in (kind, Losses))
        assert len(own) == len(asked), name
    parameters = list(inspect.signature(kind.__call__).parameters.values())
    assert parameters[1].name == "model"
    source = inspect.getsource(kind)
    for attribute in ("frozen", "kept"):
        assert hasattr(kind, attribute) or f"self.{attribute}" in source, attribute
    assert hasattr(kind, "metadata") or "self.metadata" in source
