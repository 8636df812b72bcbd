"""A bundle in torch draws what the bundle draws, and its images have a gradient."""

import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from engines.images import noises
from engines.pipeline import Pipeline
from engines.request import Request
from engines.samplers.table import Table
from exporter.families import claim
from exporter.models.resolve import resolve
from exporter.noise.torch_pipeline import KeptGradient, TorchPipeline, mixed, play
from exporter.recipe.schema import Recipe
from tests.engines import small
from tests.exporter.noise import torch_parts
from tools.coverage import models

SIZE = 32, 32
TRACED = """
sampler: {steps: [2], guidance: {mode: classifier_free, scale: 4.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32]}
"""


def asked(bundle, prompts=("a red square", "sea"), **wishes):
    how = {"negative_prompt": "", "seed": 5, "generator": None, "inputs": None}
    return Request.of(bundle.manifest, list(prompts), 1, **how | wishes)


def opened(bundle):
    return TorchPipeline(bundle, torch_parts.parts(bundle), "cpu")


@pytest.mark.parametrize("mode", ["classifier_free", "embedded", "none"])
def test_it_draws_what_the_bundle_draws(tmp_path, mode):
    bundle = small.make(tmp_path / "small", mode=mode)
    drawing = opened(bundle)
    wish = asked(bundle, **({} if mode == "none" else {"guidance_scale": 3.0}))
    images, draws, first = drawing.drawing(wish, drawing.table(2), SIZE)
    wanted = Pipeline(bundle, small.networks(bundle)).draw(wish, steps=2).images
    assert (draws.shape, first) == ((1, 2, 4, 4, 4), 0)
    assert images(torch.from_numpy(draws[0])).numpy() == pytest.approx(wanted, abs=1e-5)
    assert np.array_equal(draws[0], noises.seeded([5, 6], (2, 4, 4, 4), "numpy")())


def test_a_fused_bundles_parts_are_played_one_by_one(tmp_path):
    plain, fused = small.make(tmp_path / "plain"), small.make(tmp_path / "fused", **small.fused())
    found = []
    for bundle in (plain, fused):
        drawing = opened(bundle)
        images, draws, _ = drawing.drawing(asked(bundle), drawing.table(2), SIZE)
        found.append(images(torch.from_numpy(draws[0])).numpy())
    assert np.array_equal(*found)


def test_further_draws_are_the_seeds_and_are_told(tmp_path):
    bundle = small.make(tmp_path / "small")
    table = small.table(steps=2, draws=3)
    images, draws, first = opened(bundle).drawing(asked(bundle), table, SIZE)
    assert (len(draws), first) == (3, 0)
    drawing = Pipeline(bundle, small.networks(bundle))
    drawing.sampler = lambda *_: table
    wanted = drawing.draw(asked(bundle), noise=list(draws)).images
    assert images(torch.from_numpy(draws[0])).numpy() == pytest.approx(wanted, abs=1e-5)


def test_the_images_have_a_gradient_and_the_weights_none(tmp_path):
    bundle = small.make(tmp_path / "small")
    parts = torch_parts.parts(bundle)
    drawing = TorchPipeline(bundle, parts, "cpu")
    images, draws, _ = drawing.drawing(asked(bundle), drawing.table(None), SIZE)
    noise = torch.from_numpy(draws[0]).requires_grad_()
    images(noise).sum().backward()
    assert noise.grad[:, :3].abs().sum((1, 2, 3)).min() > 0
    assert not any(each.requires_grad for part in parts.values() for each in part.module.parameters())


def test_what_switches_gradients_off_inside_is_overruled():
    @torch.no_grad()
    def twice(values):
        with torch.no_grad():
            return 2 * values

    start = torch.ones(3, requires_grad=True)
    with KeptGradient():
        twice(start).sum().backward()
    assert start.grad.tolist() == [2, 2, 2]
    assert not twice(start).requires_grad


def test_parts_that_run_a_pipelines_own_code_have_its_gradient(tmp_path):
    models.MADE["pixart-sigma"]().save_pretrained(tmp_path / "model")
    recipe = Recipe.parse(f"model: {{source: {tmp_path / 'model'}}}\n{TRACED}", "micro")
    family = claim(resolve(recipe.model, tmp_path), recipe)
    for name, role in family.roles.items():
        if role == "text":
            continue
        part, dice = family.part(name, "fp32"), torch.Generator().manual_seed(0)
        sizes = part.signature.extent("typical")
        shapes = {port.name: part.signature.shape(port, sizes) for port in part.signature.inputs}
        given = {each: torch.rand(shape, generator=dice) for each, shape in shapes.items()}
        latent, way = given["latent"].requires_grad_(), torch.randn(shapes["latent"], generator=dice)

        def summed(there, part=part, given=given):
            with KeptGradient():
                return part.module(*({**given, "latent": there}[port.name] for port in part.signature.inputs)).double().sum()

        (gradient,) = torch.autograd.grad(summed(latent), latent)
        with torch.no_grad():
            ends = [float(summed(latent + sign * 1e-3 * way)) for sign in (1, -1)]
        assert float((gradient * way).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=0.05)
        assert gradient.abs().sum() > 1e-3


def test_play_is_the_tables_own():
    table, dice = small.table(steps=3, draws=2), np.random.default_rng(0)
    draws = dice.standard_normal((2, 1, 4, 2, 2), np.float32)
    wanted = table.play(lambda latent, time: latent * (time / 1000), iter(draws).__next__)
    found = play(table, lambda latent, time: latent * (time / 1000), [torch.from_numpy(each) for each in draws])
    assert found.numpy() == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(mixed((0.0,), [torch.ones(2)]), torch.zeros(2))


def test_what_has_no_gradient_is_refused(tmp_path, monkeypatch):
    bundle = small.make(tmp_path / "small")
    drawing = opened(bundle)
    with pytest.raises(UnsupportedError, match="3"):
        drawing.table(3)
    ops = small.table().ops
    cached = Table(provenance=small.table().provenance, ops=(*ops[:2], ops[2].model_copy(update={"shallow": True}), *ops[3:]))
    monkeypatch.setattr(drawing._pipeline, "sampler", lambda *_: cached)
    with pytest.raises(UnsupportedError, match="caches steps"):
        drawing.table(2)
    monkeypatch.setattr(drawing._pipeline, "sampler", lambda *_: object())
    with pytest.raises(UnsupportedError, match="only samplers of fixed steps have a gradient"):
        drawing.table(2)
