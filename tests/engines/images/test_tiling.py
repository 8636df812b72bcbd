"""Tiles cover the latent, agree with one call where the decoder is local, and leave no seam where it is not."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from engines.images import tiling
from engines.manifest import PartEntry, Tile
from engines.pipeline import Pipeline
from engines.signature import Range
from tests.engines import small


def local(piece):
    """A decoder that looks at a cell and its neighbours above and left, 4 px a cell."""
    near = np.pad(piece[:, :3], ((0, 0), (0, 0), (1, 0), (1, 0)), mode="edge")
    mixed = near[:, :, 1:, 1:] + 0.5 * near[:, :, :-1, 1:] + 0.25 * near[:, :, 1:, :-1]
    return mixed.transpose(0, 2, 3, 1).repeat(4, 1).repeat(4, 2).astype(np.float32)


def average(piece):
    """A decoder that sees its tile's mean alone, as a group norm does."""
    return np.broadcast_to(piece.mean((1, 2, 3))[:, None, None, None], (len(piece), *(4 * s for s in piece.shape[2:]), 3))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (9, 31), (40, 8), (6, 20)])
@pytest.mark.parametrize("overlap", [2, 4])
def test_pointwise_work_is_the_same_in_tiles(height, width, overlap):
    latent = np.random.default_rng(0).standard_normal((2, 4, height, width), dtype=np.float32)
    seen = []

    def decode(piece):
        seen.append(piece.shape[2:])
        return piece[:, :3].transpose(0, 2, 3, 1).repeat(4, 1).repeat(4, 2)

    found = tiling.decoded(decode, latent, Tile(size=8, overlap=overlap), (4, 4))
    np.testing.assert_allclose(found, decode(latent), atol=1e-5)
    assert set(seen[:-1]) == {(min(8, height), min(8, width))}, "every tile has one size, the largest that is allowed"


def test_inside_the_overlap_the_neighbour_that_sees_more_counts_more():
    latent = np.random.default_rng(1).standard_normal((1, 4, 8, 29), dtype=np.float32)
    off = np.abs(tiling.decoded(local, latent, Tile(size=8, overlap=4), (4, 4)) - local(latent)).max((0, 1, 3))
    assert off.max() > 0.01, "a tile's first column lacks its neighbour"
    # The first cell's share rises to 3.5 of 16 pixels of the overlap, and what it lacks is a quarter of two values' difference.
    assert off.max() <= 0.25 * 2 * np.abs(latent).max() * 3.5 / 16


def test_there_is_no_seam_where_tiles_differ_as_wholes():
    latent = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 4, 8, 32))
    tile = Tile(size=8, overlap=4)
    found = tiling.decoded(average, latent, tile, (4, 4))[0, 0, :, 0]
    steps = np.abs(np.diff(found))
    between_tiles = 4.0  # the means of neighbours, at a stride of 4 cells
    assert found.max() - found.min() > 5 * between_tiles, "tiles do differ"
    assert steps.max() <= between_tiles / (4 * 4) * 1.001, "linear over the 16 pixels of the overlap"


def test_few_tiles_cover_the_length_and_share_enough():
    for length in range(8, 60):
        for overlap in (1, 2, 4):
            starts = tiling._starts(length, 8, overlap)
            assert starts[0] == 0
            assert starts[-1] + 8 == length
            assert all(later - start <= 8 - overlap for start, later in itertools.pairwise(starts))
            assert len(starts) == max(1, -(-(length - overlap) // (8 - overlap)))


def tiled(folder, size, overlap):
    entry = small.draft().parts["vae_decoder"]
    dims = {n: Range(min=min(d.min, size), typical=size, max=size, multiple=d.multiple) for n, d in entry.signature.dims.items()}
    dims["batch"] = entry.signature.dims["batch"]
    signature = entry.signature.model_copy(update={"dims": dims})
    parts = {**small.draft().parts, "vae_decoder": entry.model_copy(
        update={"tile": Tile(size=size, overlap=overlap), "signature": signature}
    )}  # fmt: skip
    return small.make(folder, parts=parts)


def test_a_bundle_decodes_beyond_what_its_decoder_takes(tmp_path):
    whole, calls = small.make(tmp_path / "whole"), []
    size = small.draft().parts["vae_decoder"].signature.dims["latent_height"].min
    bundle = tiled(tmp_path / "tiled", size, size // 2)
    pipeline = Pipeline(bundle, small.networks(bundle, calls))
    assert pipeline.sizes == Pipeline(whole, small.networks(whole)).sizes
    largest = pipeline.sizes[0][1]
    asked = {"height": largest, "width": largest, "seed": 3}
    one, other = (Pipeline(each, small.networks(each, calls)).generate("a", **asked)[0] for each in (whole, bundle))
    difference = np.asarray(one).astype(int) - np.asarray(other)
    assert np.abs(difference).max() <= 1
    assert sum(name == "vae_decoder" for name, _ in calls) > 2
    assert whole.manifest.model != bundle.manifest.model


def test_only_a_decoder_has_tiles_and_they_overlap_by_half_at_most():
    entry = small.draft().parts["unet"]
    with pytest.raises(ValidationError, match="only a decoder's work is divided"):
        PartEntry.model_validate({**entry.model_dump(), "tile": {"size": 8, "overlap": 2}})
    with pytest.raises(ValidationError, match="more than half of size 8"):
        Tile(size=8, overlap=5)
