"""A bundle's pipeline with its networks in torch: from noise to images, with a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from engines import lengths
from engines.denoising import BoundDenoiser
from engines.errors import UnsupportedError
from engines.images import noises
from engines.pipeline import Pipeline
from engines.sampler_ops import Draw, Eval, GivenLatent, Scaled
from engines.samplers.table import Table

if TYPE_CHECKING:
    from engines.bundle import Bundle
    from engines.request import Request
    from engines.sampler_ops import Row
    from exporter.part import Part


class KeptGradient(TorchFunctionMode):
    """Within it nothing switches gradients off, as the pipelines of diffusers do, whose own code is what some parts run."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        """Call torch's function, unless it is that switch."""
        return None if func is torch._C._set_grad_enabled else func(*args, **(kwargs or {}))  # noqa: SLF001 - has no public name


class TorchPipeline:
    """A bundle's source model after its passes, played by the bundle's own sampler, guidance and wiring.

    Args:
        bundle: what is played.
        parts: all that run from a prompt to an image, by name.
        device: where they run.

    """

    def __init__(self, bundle: Bundle, parts: Mapping[str, Part], device: str) -> None:
        self._about, self._parts, self._device = bundle.manifest, parts, device
        for part in parts.values():
            part.module.to(device).requires_grad_(requires_grad=False)
        # What runs once a picture has no gradient, and needs none: as the run time does it, on the same networks.
        self._pipeline = Pipeline(bundle, {name: self._engine(name) for name in parts})

    def table(self, steps: int | None, height: int | None = None, width: int | None = None) -> Table:
        """The bundle's sampler of so many steps for a size in pixels, its defaults unless given.

        Raises:
            UnsupportedError: there is none, or none that can be differentiated.

        """
        defaults = self._about.defaults
        found = self._pipeline.sampler(steps or defaults.steps, height or defaults.height, width or defaults.width)
        if not isinstance(found, Table):
            raise UnsupportedError("only samplers of fixed steps have a gradient, and this bundle's chooses its own.")
        if any(isinstance(op, GivenLatent) or (isinstance(op, Eval) and op.shallow) for op in found.ops):
            raise UnsupportedError("this sampler caches steps, which torch does not do here. Build without sampler.cache.")
        if any(isinstance(op, Scaled) for op in found.ops):
            raise UnsupportedError("this sampler corrects by norms, which is not played in torch. Build with another scheduler.")
        return found

    def drawing(self, asked: Request, table: Table, size: tuple[int, int]) -> tuple[Callable[[Tensor], Tensor], np.ndarray, int]:
        """Bind what is asked for.

        Returns:
            Initial noise (pictures, C, H, W) → images (pictures, height, width, 3) in [0, 1], with a gradient; every draw of the
            seeds that this takes, float32 (draws, pictures, C, H, W); and which of them is the initial noise.

        """
        made = list[np.ndarray]()
        draw = self._pipeline.seeded(asked.seeds, len(asked.prompts), *size, asked.generator)
        draw = noises.reordered(draw, self._about.noise_order)

        def drawn() -> np.ndarray:
            made.append(draw())
            return made[-1]

        ids, _ = self._pipeline.tokenize(asked.prompts, asked.negative_prompts, **asked.seconds)
        conditioning = self._pipeline.condition(ids, drawn)
        first = len(made)
        made += [draw() for op in table.ops if isinstance(op, Draw)]
        denoise: Any = BoundDenoiser(self._run, self._about, conditioning, self._about.guidance.fed(asked.scales))
        (decoder,) = self._about.with_role("decoder")

        def images(noise: Tensor) -> Tensor:
            latent = play(table, denoise, [noise, *(torch.from_numpy(each).to(noise) for each in made[first + 1 :])])
            return self._run(decoder, {**conditioning, "latent": cast("Any", latent)})["image"]

        return images, np.stack(made), first

    def _run(self, name: str, pool: Mapping[str, Any]) -> dict[str, Any]:
        """Run one part on what it takes of the pool, arrays and tensors, in torch: tensors."""
        signature = self._parts[name].signature

        def network(arrays: Mapping[str, Any]) -> dict[str, Any]:
            return self._called(name, arrays)

        return lengths.run(network, signature, lengths.taken(signature, pool))

    def _engine(self, name: str) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            with torch.no_grad():
                return {output: tensor.cpu().numpy() for output, tensor in self._called(name, arrays).items()}

        return run

    def _called(self, name: str, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        part = self._parts[name]
        given = [arrays[port.name] for port in part.signature.inputs if port.name in arrays]
        tensors = [each if isinstance(each, Tensor) else torch.tensor(each, device=self._device) for each in given]
        with KeptGradient() if torch.is_grad_enabled() else nullcontext():
            found = part.module(*tensors)
        found = found if isinstance(found, tuple) else (found,)
        return {port.name: tensor.float() for port, tensor in zip(part.signature.outputs, found, strict=True)}


def play(table: Table, denoise: Callable[..., Tensor], draws: Sequence[Tensor]) -> Tensor:
    """Play a table as `Table.play` does, in torch, on these draws: the final latent, float32."""
    history, waiting = list[Tensor](), iter(draws)
    for op in table.ops[:-1]:
        history.append(denoise(mixed(op.row, history), op.t, **op.asks()) if isinstance(op, Eval) else next(waiting))
    last: Any = table.ops[-1]  # validated: the emit
    return mixed(last.row, history)


def mixed(row: Row, history: Sequence[Tensor]) -> Tensor:
    """Sum of coefficient times latent."""
    terms = [coefficient * latent for coefficient, latent in zip(row, history, strict=False) if coefficient]
    return torch.stack(terms).sum(0) if terms else torch.zeros_like(history[0])
