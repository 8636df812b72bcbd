"""Pictures to learn from, and a recipe that does."""

import pytest
from torch.nn.modules.module import register_module_forward_pre_hook

from exporter.passes import _teach
from tests.exporter import lessons


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return lessons.pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def text(tiny_sdxl, data):
    return lessons.RECIPE.replace("SOURCE", str(tiny_sdxl)).replace("DATA", str(data))


@pytest.fixture(autouse=True)
def aligned(monkeypatch):
    """Hold every layer that takes part in a training to weights and inputs that are aligned as torch aligns what it allocates.

    Libraries choose kernels by alignment, and kernels differ in their last digit: whether a training that was killed repeats
    one that was not would depend on the processor.
    """
    run, seen = _teach.Training.run, []

    def look(layer, _inputs):
        seen.extend((type(layer).__name__, tensor.data_ptr()) for tensor in layer._parameters.values() if tensor is not None)

    def watched(self):
        hook = register_module_forward_pre_hook(look)
        draw = self._losses.draw
        self._losses.draw = lambda share: _drawn(draw(share), seen)
        try:
            return run(self)
        finally:
            hook.remove()
            del self._losses.draw

    monkeypatch.setattr(_teach.Training, "run", watched)
    yield
    assert not {name for name, place in seen if place % 64}


def _drawn(tensors, seen):
    seen.extend(("drawn", tensor.data_ptr()) for tensor in tensors if tensor.is_floating_point())
    return tensors
