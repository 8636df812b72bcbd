import numpy as np
import pytest
import torch

from engines import plugins
from engines.errors import UnsupportedError
from engines.signature import Port, Range, Signature
from exporter.onnx import export as exporting
from exporter.part import Part

SIGNATURE = Signature(
    inputs=(Port(name="latent", shape=("batch", 2, "side", 4)),),
    outputs=(Port(name="model_output", shape=("batch", 2, "side", 4)),),
    dims={"batch": Range(min=1, typical=1, max=4), "side": Range(min=2, typical=4, max=8, multiple=2)},
)


class Functional(torch.nn.Module):
    def forward(self, latent):
        return 1000 - (latent.to(torch.float64) * 3).to(torch.float32).to(torch.float32)


class Mixed(torch.nn.Module):
    """Lists of tensors in several number formats, of which torch makes the widest."""

    def forward(self, latent):
        narrow = latent.to(torch.float16)
        first, second = torch.cat([narrow, latent], 1).chunk(2, 1)
        third, fourth = torch.concat([latent * 3, narrow], 1).chunk(2, 1)
        return first + second + third + fourth + torch.stack([narrow, latent]).sum(0)


class Unbiased(torch.nn.Module):
    """A convolution in three dimensions without a bias."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 1, 1, bias=False).requires_grad_(requires_grad=False)

    def forward(self, latent):
        return self.conv(latent[:, None])[:, 0]


class Headless(torch.nn.Module):
    """Attention without an axis of heads, with a mask and without."""

    def forward(self, latent):
        cells = latent.flatten(2).transpose(1, 2).abs() + 1  # sums that do not come near 0
        alike = cells @ cells.transpose(1, 2)
        mask = alike >= alike.mean(-1, keepdim=True)
        plain = torch.nn.functional.scaled_dot_product_attention(cells, cells, cells)
        masked = torch.nn.functional.scaled_dot_product_attention(cells, cells, cells, mask)
        return (plain + masked).transpose(1, 2).reshape(latent.shape)


class Placed(torch.nn.Module):
    def forward(self, latent):
        places = torch.arange(2, dtype=torch.int32, device="cpu").to(device="cpu", dtype=torch.int32)
        return latent[:, places]


class FilledUp(torch.nn.Module):
    """Up to a multiple by a number of the graph's own, beside an operator that needs decomposition."""

    def forward(self, latent):
        missing = torch.full((), -latent.shape[2] % 4, dtype=torch.long).item()
        torch._check(missing >= 0)
        torch._check(missing < 4)
        filled = torch.cat([latent, latent[:, :, -1:].repeat(1, 1, missing, 1)], 2)
        return InPlace.forward(self, filled[:, :, : latent.shape[2]])


class InPlace(torch.nn.Module):
    """Reads what it writes by a name that it had before."""

    def forward(self, latent):
        changed = latent.clone()
        part = changed[:, :1]
        part.add_(2.0)
        return changed * part


class Written(torch.nn.Module):
    """Writes to numbers of its own, and compares them."""

    def forward(self, latent):
        ids = torch.zeros(2, 1, 4)
        ids[:, 0, 1] += torch.outer(torch.arange(2), torch.tensor([1, 3]))[:, 1]
        near = (ids > 1) & (ids < 4) | (ids == 5)
        return torch.min(latent, torch.max(-latent, near.to(latent.dtype)))


class Listed(torch.nn.Module):
    def forward(self, latent):
        return latent * torch.tensor([1.0, 2.0, 3.0, 4.0]).repeat(2, 1, 1)


class Outlined(InPlace):
    """Beside what needs decomposition a network without memory computes, whose weights are no parameters."""

    weight = (torch.ones(4, device="meta"),)

    def forward(self, latent):
        _ = latent.to("meta") * self.weight[0]
        return super().forward(latent)


class Unspeakable(torch.nn.Module):
    def forward(self, latent):
        return torch.linalg.matrix_exp(latent[..., :2, :2]).sum() + latent


def run(module, folder, monkeypatch):
    """What ONNX Runtime makes of the exported module, and how often torch translated it."""
    calls, translate = [], exporting._translate
    monkeypatch.setattr(exporting, "_translate", lambda *args: (calls.append(args), translate(*args))[1])
    files = exporting.save(exporting.export(Part("unet", "denoiser", module.eval(), SIGNATURE), 20), folder / "unet.onnx")
    given = np.random.default_rng(0).standard_normal((3, 2, 6, 4), np.float32)
    with plugins.load("backends", "onnxruntime")().open(files, SIGNATURE) as engine:
        got = engine({"latent": given})["model_output"]
    want = module(torch.from_numpy(given.copy())).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-6)
    return len(calls)


def test_what_needs_no_decomposition_is_translated_at_once(tmp_path, monkeypatch):
    assert run(Functional(), tmp_path, monkeypatch) == 1


def test_what_needs_decomposition_gets_it(tmp_path, monkeypatch):
    assert run(InPlace(), tmp_path, monkeypatch) == 2


def test_weights_of_what_no_output_is_made_of_do_not_hinder_it(tmp_path, monkeypatch):
    assert run(Outlined(), tmp_path, monkeypatch) == 2


def test_what_is_written_in_place_needs_none(tmp_path, monkeypatch):
    assert run(Written(), tmp_path, monkeypatch) == 1


def test_a_list_that_becomes_a_tensor_needs_none(tmp_path, monkeypatch):
    assert run(Listed(), tmp_path, monkeypatch) == 1


def test_numbers_of_places_are_as_wide_as_onnx_has_them(tmp_path, monkeypatch):
    assert run(Placed(), tmp_path, monkeypatch) == 1


def test_a_convolution_without_a_bias_has_none_of_two_axes(tmp_path, monkeypatch):
    assert run(Unbiased(), tmp_path, monkeypatch) == 1


def test_attention_without_heads_has_one(tmp_path, monkeypatch):
    assert run(Headless(), tmp_path, monkeypatch) == 1


def test_a_list_is_as_wide_as_its_widest(tmp_path, monkeypatch, caplog):
    assert run(Mixed(), tmp_path, monkeypatch) == 1
    assert not [each.message for each in caplog.records if each.levelname == "WARNING"], "torch misses nothing in what was added"


def test_a_number_that_the_graph_computes_of_lengths_is_decomposed_too(tmp_path, monkeypatch):
    assert run(FilledUp(), tmp_path, monkeypatch) == 2


def test_what_cannot_be_translated_says_so():
    with pytest.raises(UnsupportedError, match="unet cannot be exported to ONNX operator set 20"):
        exporting.export(Part("unet", "denoiser", Unspeakable().eval(), SIGNATURE), 20)


_SUMMED = (
    "Failed to convert.\n\n## Exception summary\n\n<class 'torch.onnx.errors.DispatchError'>: No function for x\n⬆️\n"
    "<class 'torch.onnx.errors.ConversionError'>: Error at node y\n\n(Refer to the full stack trace above.)"
)
_ADVISED = "A tensor is a fake one.\nUse tlparse to see full graph.\n(https://github.com/pytorch/tlparse)"


@pytest.mark.parametrize(
    ("words", "last"), [(_SUMMED, "DispatchError: No function for x"), (_ADVISED, "A tensor is a fake one.")]
)
def test_of_torch_s_words_those_are_told_that_say_what_is_wrong(words, last):
    assert exporting._last(RuntimeError(words)) == last


def test_a_length_that_the_code_fixes_is_told_with_what_to_write():
    class Fixed(torch.nn.Module):
        def forward(self, latent):
            return latent + torch.ones(int(latent.shape[0]), 1, 1, 1)

    with pytest.raises(UnsupportedError, match="its code takes batch for one number, and the recipe asks for a range"):
        exporting.export(Part("unet", "denoiser", Fixed().eval(), SIGNATURE), 20)


class Doubling(torch.nn.Module):
    """As an upsampler of UNet and VAE."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, latent):
        return self.conv(torch.nn.functional.interpolate(latent, scale_factor=2.0, mode="nearest"))[:, :, ::2, ::2]


def test_for_a_processor_convolutions_come_before_doubling():
    part = Part("unet", "denoiser", Doubling().eval(), SIGNATURE)
    kinds = [[node.op_type for node in exporting.export(part, 20, processor=own).model.graph] for own in (False, True)]
    assert [("Resize" in found, found.count("DepthToSpace")) for found in kinds] == [(True, 0), (False, 1)]


class Ending(torch.nn.Module):
    """Goes on elsewhere behind what it returns."""

    def forward(self, latent):
        made = latent * 2
        _ = (made.to("meta") + 1).to(torch.float64)
        return made


def test_what_no_output_is_made_of_is_no_part_of_the_graph():
    graph = torch.export.export(Ending(), (torch.ones(1, 2, 4, 4),), strict=False).graph
    made = next(node for node in graph.nodes if node.op == "call_function")
    assert len(made.users) > 1
    elsewhere = next(user for user in made.users if user.op == "call_function")
    made.users.pop(elsewhere)  # as torch leaves it where `made` was returned before
    exporting._prune(graph)
    assert [node.op for node in graph.nodes] == ["placeholder", "call_function", "output"]
