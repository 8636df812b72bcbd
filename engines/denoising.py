"""A denoiser with the conditioning of one call and its guidance bound: what samplers call at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from engines import lengths
from engines.errors import UnsupportedError
from engines.guidance import BRANCHES
from engines.signature import still

if TYPE_CHECKING:
    from engines.manifest import Draft, PartEntry

#: A part's name and arrays by name, of which it takes what it has inputs for → its outputs.
Run = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class BoundDenoiser:
    """Called by samplers as `engines.samplers.Denoise` says.

    Where the network's conditioning has an open number of branches, those are computed that some picture's guidance needs; where
    it is off for all, the prompt's own alone. What a whole call leaves beside its answer, its deep features, is kept for the
    shallow ones.

    Args:
        run: runs a part, in batches that it can take.
        manifest: of the bundle.
        conditioning: of all pictures, by name.
        scales: of all pictures, by name, as `Guidance.fed` gives them.
        evaluations: int64 (pictures,), is added to: how often a network ran for each picture.

    """

    def __init__(
        self,
        run: Run,
        manifest: Draft,
        conditioning: Mapping[str, np.ndarray],
        scales: Mapping[str, np.ndarray],
        evaluations: np.ndarray | None = None,
    ) -> None:
        self._run, self._guidance, self._scales, self._evaluations = run, manifest.guidance, scales, evaluations
        ((self._whole, entry),) = manifest.with_role("denoiser").items()
        self._shallow = next(iter(manifest.with_role("shallow")), None)
        self._answer, *self._deep = (port.name for port in entry.signature.outputs)
        self._branched, self._shared = _branched(entry), entry.signature.shared
        # With how long texts of open length are, one number a picture.
        self._bound = {name: still(array) for name, array in lengths.taken(entry.signature, conditioning).items()}
        self._taken: dict[tuple[int, ...], Mapping[str, np.ndarray]] = {}
        self._kept: dict[str, np.ndarray] = {}

    def __call__(
        self,
        latent: np.ndarray,
        timestep: float | np.ndarray,
        which: np.ndarray | None = None,
        *,
        guided: float | np.ndarray | None = None,
        shallow: bool = False,
    ) -> np.ndarray:
        """Evaluate a network once for every item."""
        if self._evaluations is not None:
            np.add.at(self._evaluations, np.arange(len(latent)) if which is None else which, 1)
        scales = {name: scale if which is None or not scale.ndim else scale[which] for name, scale in self._scales.items()}
        if guided is not None:
            scales = self._guidance.at(scales, guided)
        branches = self._guidance.taken(scales) if self._branched else ()
        bound = self._of(branches) if branches else self._bound
        own = bound if which is None else {name: each if name in self._shared else each[which] for name, each in bound.items()}
        numbers = {**scales, "timestep": np.asarray(timestep)}
        pool = {**own, **{name: np.full(len(latent), number, np.float32) for name, number in numbers.items()}, "latent": latent}
        if shallow:
            return self._run(self._shallow_part(), {**pool, **self._features(len(branches))})[self._answer]
        found = self._run(self._whole, pool)
        self._kept = {name: still(found[name]) for name in self._deep}
        return found[self._answer]

    def _shallow_part(self) -> str:
        if self._shallow is None or not self._kept:
            raise UnsupportedError("this sampler asks for shallow steps, which this bundle's denoiser has not. Build it again.")
        return self._shallow

    def _features(self, branches: int) -> Mapping[str, np.ndarray]:
        """The deep features, of the last branch where that is computed alone; once cut, they stay so until a whole call."""
        if branches == 1 and any(array.shape[1] > 1 for name, array in self._kept.items() if name in self._branched):
            self._kept = self._cut(self._kept, (-1,))
        return self._kept

    def _of(self, branches: tuple[int, ...]) -> Mapping[str, np.ndarray]:
        """What is bound, of these branches of the texts, (pictures, branches, …)."""
        if branches not in self._taken:
            self._taken[branches] = self._cut(self._bound, branches)
        return self._taken[branches]

    def _cut(self, arrays: Mapping[str, np.ndarray], branches: tuple[int, ...]) -> dict[str, np.ndarray]:
        """These branches, of those that have any, and the others as they are."""
        if branches == tuple(range(self._guidance.branches)):
            return dict(arrays)
        cut = {name: np.take(array, branches, axis=1) for name, array in arrays.items() if name in self._branched}
        return {name: still(cut.get(name, array)) for name, array in arrays.items()}


def _branched(entry: PartEntry) -> set[str]:
    """Ports of which the number of branches is open."""
    ports = (*entry.signature.inputs, *entry.signature.outputs)
    return {port.name for port in ports if port.shape[1:2] == (BRANCHES,)}
