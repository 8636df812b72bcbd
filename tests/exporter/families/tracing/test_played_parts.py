"""Parts that let the pipeline's own code run export with an open batch and open sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.onnx.capture import traced
from tests.exporter.families.test_traced import RECIPE, family
from tools.coverage.models import MADE


@torch.no_grad()
def test_a_guided_step_is_open_in_batch_and_size(tmp_path: Path):
    MADE["auraflow"]().save_pretrained(tmp_path)
    text = RECIPE.replace("height: [32, 32, 32]", "height: [32, 32, 64]").replace("batch: [1, 1, 2]", "batch: [1, 1, 4]")
    part = family(tmp_path, text=text).part("transformer", "fp32")
    program = traced(part).module()
    random = np.random.default_rng(0)
    for sizes in ({"batch": 3, "latent_height": 24, "latent_width": 16}, {"batch": 1, "latent_height": 16, "latent_width": 24}):
        given = []
        for port in part.signature.inputs:
            shape = part.signature.shape(port, sizes)
            array = np.ones(shape, np.int64) if port.dtype == "int64" else random.standard_normal(shape).astype(np.float32)
            given.append(torch.from_numpy(array))
        torch.testing.assert_close(program(*given), part.module(*given), rtol=1e-4, atol=1e-4)
        assert given[0].shape == part.module(*given).shape


@torch.no_grad()
@pytest.mark.parametrize(("name", "side"), [("kandinsky3", 64), ("lumina", 32)])
def test_a_negative_prompt_that_is_cut_or_filled_to_the_prompt_s_length_is_so_in_the_graph(name, side, tmp_path):
    MADE[name]().save_pretrained(tmp_path)
    made = family(tmp_path, text=RECIPE.replace("[32, 32, 32]", str([side] * 3)).replace("[32, 32, 48]", str([side] * 3)))
    part, reference = made.part("text_encoder", "fp32"), made.reference()
    for negative in ("a", "a negative prompt that is the longer one"):
        wanted, ids = reference.encode(["a white cat"], negative), reference.tokenize(["a white cat"], negative)
        found = part.module(*(torch.from_numpy(ids[port.name]) for port in part.signature.inputs))
        for port, got in zip(part.signature.outputs, found, strict=True):
            assert got.shape == wanted[port.name].shape
            np.testing.assert_allclose(got.numpy(), wanted[port.name], atol=1e-5)
