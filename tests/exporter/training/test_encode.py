"""Pictures and captions are encoded as the networks see them, once each."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engines.errors import UnsupportedError
from engines.signature import Port, Range, Signature
from exporter.training import encode
from exporter.training.captioned_images import CaptionedImage

DIMS = {"batch": Range(min=1, typical=1, max=2), "h": Range(min=1, typical=2, max=4), "w": Range(min=1, typical=3, max=4)}


@pytest.fixture(autouse=True)
def _processor(monkeypatch):
    monkeypatch.setattr(encode, "device", lambda: torch.device("cpu"))


def picture(pixels, name="a.png"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return CaptionedImage(name, "a caption", file.getvalue)


class Family:
    """Text towers that count, and an encoder that averages pixels and adds its noise."""

    towers = {"text_encoder": "tokenizer"}  # noqa: RUF012
    image_encoder = "vae_encoder"

    def __init__(self, branches=1):
        self.branches, self.seen, self.calls = branches, [], []

    def signature(self, _tower):
        ids = Port(name="ids", dtype="int64", shape=("batch", self.branches, 4))
        states = (
            Port(name="states", shape=("batch", self.branches, 4, 2)),
            Port(name="pooled", shape=("batch", self.branches, 1)),
        )
        return Signature(inputs=(ids,), outputs=states, dims={"batch": DIMS["batch"]})

    def literal_ids(self, tower, texts):
        assert tower == "text_encoder"
        self.seen += texts
        return np.array([[len(text)] * 4 for text in texts], np.int64)

    def part(self, name, precision):
        assert precision == "fp32"
        if name == "vae_encoder":
            image, noise = Port(name="image", shape=("batch", "4*h", "4*w", 3)), Port(name="noise", shape=("batch", 3, "h", "w"))
            signature = Signature(inputs=(noise, image), outputs=(Port(name="latent", shape=noise.shape),), dims=DIMS)
            return SimpleNamespace(module=Average(self.calls), signature=signature)
        return SimpleNamespace(module=Tower(self.branches), signature=self.signature(name))


class Tower(torch.nn.Module):
    def __init__(self, branches):
        super().__init__()
        self.branches = branches

    def forward(self, ids):
        assert ids.shape[1:] == (self.branches, 4)
        states = ids.float().unsqueeze(-1).expand(*ids.shape, 2).clone()
        if self.branches == 2:
            states[:, 0] = -7  # what some models make of the empty negative prompt
        return states, states[..., 0, :1]


class Average(torch.nn.Module):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def forward(self, noise, image):
        self.calls.append((noise.clone(), image.clone()))
        return torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), 4) + noise


@pytest.mark.parametrize(("branches", "first"), [(1, 0.0), (2, -7.0)])
def test_captions_follow_the_empty_prompt(tmp_path, branches, first):
    family = Family(branches)
    encode.captions(family, ["a", "abc", "ab"], tmp_path, 2)
    states, pooled = np.load(tmp_path / "states.npy"), np.load(tmp_path / "pooled.npy")
    assert (states.shape, states.dtype, pooled.shape) == ((4, 4, 2), np.float16, (4, 1))
    np.testing.assert_array_equal(states[:, 0, 0], [first, 1, 3, 2])
    np.testing.assert_array_equal(pooled[:, 0], [first, 1, 3, 2])
    assert family.seen == (["", "a", "abc", "ab"] if branches == 1 else ["", "", "a", "", "abc", "ab"])


def test_pictures_cover_the_size_and_lose_their_edges(tmp_path):
    family, wide = Family(), np.zeros((8, 36, 3), np.uint8)
    wide[:, 12:24] = 255
    narrow = np.zeros((24, 12, 3), np.uint8)
    narrow[8:16] = 255
    encode.latents(family, [picture(wide), picture(narrow), picture(wide)], (8, 12), tmp_path / "latents.npy", 2)
    found = np.load(tmp_path / "latents.npy")
    assert (found.shape, found.dtype) == ((3, 3, 2, 3), np.float16)
    noise, images = (torch.cat([call[side] for call in family.calls]) for side in (0, 1))
    assert (images == 1).all(), "the middle alone is left"
    generator = torch.Generator().manual_seed(0)
    want = torch.cat([torch.randn((count, 3, 2, 3), generator=generator) for count in (2, 1)])
    torch.testing.assert_close(noise, want)
    np.testing.assert_allclose(found, 1 + want.numpy(), atol=5e-3)


def test_a_picture_that_is_none_is_named(tmp_path):
    broken = CaptionedImage("data/b.png", "a caption", lambda: b"no picture")
    with pytest.raises(UnsupportedError, match=r"data/b.png is not a whole picture: .*\n  Take it out of the data"):
        encode.latents(Family(), [broken], (8, 12), tmp_path / "latents.npy", 2)


def test_no_pictures_write_nothing(tmp_path):
    encode.latents(Family(), [], (8, 12), tmp_path / "latents.npy", 2)
    assert not list(tmp_path.iterdir())
