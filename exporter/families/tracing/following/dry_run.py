"""Run a pipeline of diffusers without its networks' memory, and note what it does with texts, noise, sizes and components."""

from __future__ import annotations

import ast
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError
from engines.signature import Dim
from exporter.families.tracing.following import guiders, noise_levels, open_lengths, own_start, rewriting, standins
from exporter.families.tracing.following.class_labels import met_at_the_door
from exporter.families.tracing.following.exact_times import ExactTimes, exact
from exporter.families.tracing.following.kept_types import kept_types
from exporter.families.tracing.following.noise_levels import NoiseLevels
from exporter.families.tracing.following.open_positions import OpenPositions
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.open_texts import OpenTexts
from exporter.families.tracing.following.origins import Origins, Weights, owners
from exporter.families.tracing.following.standins import Absent, Answered, Finished, Grid, Stepped

#: What the survey has encoded: words that no template holds, so that they are found again.
POSITIVE, NEGATIVE = "A Xylophone 7", "A Quokka 3"
#: The methods by which pipelines encode their prompts.
ENCODERS = ("encode_prompt", "_encode_prompt")
#: Arguments with which pipelines change what is asked of them, and their values by which they do not: sizes to the nearest of
#: a list, captions by code, guidance by the time (of which the default is never), positions by the time (of which the default is
#: 1, its end), pictures that are changed but in part.
_OFF: Mapping[str, Any] = {
    "use_resolution_binning": False, "clean_caption": False, "skip_text_cleaning": True, "cfg_truncation": None, "strength": 1.0,
    "_auto_resize": False, "scaling_watershed": standins.Unreached(), **dict.fromkeys(rewriting.SWITCHES, False),
}  # fmt: skip


@dataclass(frozen=True)
class Leaf:
    """One tensor that a pipeline's encoding of a prompt returns.

    Attributes:
        name: of the port.
        shape: behind the batch.
        dtype: as the pipeline has it.
        rows: whether the pipeline has a list, one tensor a picture.
        times: how many rows are one picture's; all pictures of a branch follow each other.
        open: axis behind the batch → the dimension that it is, where the length depends on the text.

    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    rows: bool = False
    times: int = 1
    open: Mapping[int, str] = field(default_factory=dict)

    @property
    def port_shape(self) -> tuple[Dim, ...]:
        """Of the port, behind the batch: a picture's rows, where it has several, are an axis of their own."""
        return (*self._rows, *(self.open.get(axis, length) for axis, length in enumerate(self.shape)))

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """The same with the lengths that the survey saw."""
        return (*self._rows, *self.shape)

    @property
    def _rows(self) -> list[int]:
        return [self.times] if self.times > 1 else []


@dataclass(frozen=True)
class TokenCall:
    """One call of a tokenizer.

    Attributes:
        tokenizer: its name.
        texts: what it was called with.
        options: of the call.
        ids: int64 (texts, length) as it gave them.
        mask: of the same shape.
        again: whether these texts were tokenized before, so that this is to warn of what does not fit.
        seen: pictures that the text encoder sees in them, each one of the ids; None: none.
        more: what it gave besides, that is made of the mask.

    """

    tokenizer: str
    texts: tuple[str, ...]
    options: Mapping[str, Any]
    ids: Tensor
    mask: Tensor
    again: bool
    seen: Any = None
    more: tuple[str, ...] = ()


@dataclass
class Encoding:
    """One call of a pipeline's encoder of prompts: its arguments, and what it returned."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    found: Any = None
    tokens: list[TokenCall] = field(default_factory=list)


class Play:
    """One call of a pipeline with stand-ins.

    Args:
        pipeline: of diffusers.
        draw: shape → noise.
        time: (B,), of the model.
        origins: what follows the pictures, where there are any.
        leveled: whether it is known that its step is computed from the noise's level, and `time` is that.
        dtype: of noise for which the pipeline asks for no number format; None: torch's own.

    Attributes:
        grid: what the scheduler was told.
        levels: whether it was asked for the noise's level.
        prepares: whether to end where the loop over the steps begins.
        unseeded: what answers draws of no generator.
        fills: whether it has put a picture under noise, in which it fills a mask.
        phase: where the pipeline is: `text` within its encoder of prompts, else `before`, `denoiser` or `decoder`.

    """

    def __init__(
        self,
        pipeline: Any,  # noqa: ANN401
        draw: Callable[[Sequence[Any]], Tensor],
        time: Tensor,
        origins: Origins | None = None,
        *,
        leveled: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        here = torch.device("cpu")
        self.pipeline = standins.stand_in(pipeline, _execution_device=here, device=here)
        self.grid, self.phase, self._answered, self._origins = Grid(), "before", Answered(draw, dtype), origins
        self.prepares, self.unseeded, self.fills = False, standins.Unseeded(), False
        self.on_step: Callable[[Any, Any, Any, Mapping[str, Any]], Any] = self._stop
        scheduler, self.levels = standins.scheduler(pipeline.scheduler, time, self._stepped, self.grid), NoiseLevels()
        exact(scheduler.timesteps)
        scheduler = noise_levels.followed(scheduler, pipeline.scheduler, self.levels, time, known=leveled)
        self._place(scheduler=standins.stand_in(scheduler, **own) if (own := own_start.methods(self)) else scheduler)
        self._place(**own_start.processors(pipeline))
        self._place(check_inputs=lambda *_, **__: None, progress_bar=self._loop)

    def _place(self, **attributes: Any) -> None:  # noqa: ANN401
        """Set attributes without diffusers' notice, which would look up their libraries."""
        self.pipeline.__dict__.update(attributes)

    @property
    def encoder(self) -> str:
        """Name of the method that encodes prompts; empty where there is none."""
        return encoder_of(self.pipeline)

    def encode_by(self, encode: Callable[..., Any]) -> None:
        """Let `encode` encode prompts."""
        if self.encoder:
            self._place(**{self.encoder: encode})

    def place(self, **components: Any) -> None:  # noqa: ANN401
        """Put other components into the pipeline's places."""
        self._place(**components)

    def own(self, method: str) -> Any:  # noqa: ANN401 - the pipeline's
        """Let the pipeline have a method of its own again, and return it; None where it has none."""
        self.pipeline.__dict__.pop(method, None)
        return getattr(self.pipeline, method, None)

    def __call__(self, **asked: Any) -> Any:  # noqa: ANN401 - what the pipeline returns
        """Call the pipeline, with those of the arguments that it takes."""
        takes = arguments(self.pipeline)
        asked = {**off(asked["height"], asked["width"]), "generator": torch.Generator(), **asked}
        given = {name: value for name, value in asked.items() if name in takes}
        self._place(**guiders.steered(self.pipeline, asked.get("guidance_scale", 1.0)))
        unseeded = self.unseeded if "generator" in takes else nullcontext()
        call = inspect.unwrap(type(self.pipeline).__call__)
        # Origins outermost: what the answers put in the place of scales and noise is followed too.
        followed, kept = self._origins or nullcontext(), open_lengths.open_lengths(self.pipeline)
        labelled = met_at_the_door(self.pipeline) if self._origins else nullcontext()
        known, largest = OpenTexts(), OpenPositions()  # innermost: what is known of a mask is not to be asked of torch
        with (
            standins.real(), torch.no_grad(), followed, self._answered, unseeded, kept, known, largest, self.levels,
            kept_types(self.pipeline), labelled, guiders.close(), quiet(), ExactTimes(),
        ):  # fmt: skip
            return call(self.pipeline, **given)

    def _loop(self, times: Any = None, **_: Any) -> Any:  # noqa: ANN401 - of a progress bar
        """Begin the steps: the bar of a `with`, or what is looped over where the bar is given that."""
        return self._over(times) if times is not None else self._bar()

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        self._begin()
        yield SimpleNamespace(update=lambda *_: None)

    def _over(self, times: Any) -> Iterator[Any]:  # noqa: ANN401
        self._begin()
        yield from times

    def _begin(self) -> None:
        self.phase = "denoiser"
        if self.prepares:
            raise Stepped(None, None, {})

    def _stepped(self, output: Any, time: Any, sample: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
        return self.on_step(output, time, sample, options)

    @staticmethod
    def _stop(output: Any, _time: Any, sample: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
        raise Stepped(output, sample, options)

    def pass_through(self, _output: Any, _time: Any, sample: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """A step that leaves the latent as it is."""
        self.phase = "decoder"
        # Of one step alone some pipelines take the clean latent, which it then is.
        both = BaseOutput(prev_sample=sample, pred_original_sample=sample)
        return both if options.get("return_dict", True) else both.to_tuple()


def encoder_of(pipeline: Any) -> str:  # noqa: ANN401 - a pipeline of diffusers
    """Name of the method that encodes prompts; empty where there is none."""
    return next((name for name in ENCODERS if hasattr(type(pipeline), name)), "")


def off(height: Any, width: Any) -> dict[str, Any]:  # noqa: ANN401 - open lengths
    """Arguments by which a pipeline draws the size that it is asked for, and no more."""
    return {**_OFF, "max_area": open_lengths.Area(height, width)}


def arguments(pipeline: Any) -> Mapping[str, inspect.Parameter]:  # noqa: ANN401 - a pipeline of diffusers
    """What the call of a pipeline, or of a class of them, takes."""
    kind = pipeline if isinstance(pipeline, type) else type(pipeline)
    return inspect.signature(inspect.unwrap(kind.__call__)).parameters


def quiet() -> AbstractContextManager[Any]:
    """Within it diffusers does not tell which of its own methods its pipelines should no longer call."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def returning(pipeline: Any, seen: dict[str, Any]) -> ExitStack:  # noqa: ANN401
    """Note, in `seen`, what components last returned of several things, with what is `Absent` for tensors, until closed."""
    stack = ExitStack()

    def noting(name: str) -> Callable[..., None]:
        def saw(_module: object, _args: object, result: Any) -> None:  # noqa: ANN401
            if isinstance(result, tuple | list) or hasattr(result, "keys"):
                seen[name] = pytree.tree_map_only(Tensor, lambda each: Absent(each.shape), result)

        return saw

    for name, network in pipeline.components.items():
        if isinstance(network, nn.Module):
            stack.callback(network.register_forward_hook(noting(name)).remove)
    return stack


def watched(pipeline: Any, phase: Callable[[], str], seen: dict[str, list[str]]) -> ExitStack:  # noqa: ANN401
    """Note in which phase which component computes, in `seen`, until the stack is closed."""
    stack = ExitStack()

    def noting(name: str) -> Callable[..., None]:
        def saw(*_: object) -> None:
            if name not in seen.setdefault(phase(), []):
                seen[phase()].append(name)

        return saw

    for name, network in pipeline.components.items():
        for module in network.modules() if isinstance(network, nn.Module) else ():
            stack.callback(module.register_forward_pre_hook(noting(name)).remove)
    stack.enter_context(Weights(owners(pipeline), lambda name: noting(name)()))
    return stack


def names_of(function: Callable[..., Any], count: int) -> list[str]:
    """Names under which a function returns its `count` values, as its last `return` has them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    returns = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    last = max(returns, key=lambda value: value.lineno)
    values = last.elts if isinstance(last, ast.Tuple) else [last]
    names = [value.id if isinstance(value, ast.Name) else f"conditioning_{number}" for number, value in enumerate(values)]
    return names if len(names) == count else [f"conditioning_{number}" for number in range(count)]


def leaves(found: Any, batch: int) -> tuple[list[Any], Any]:  # noqa: ANN401 - what an encoder returns
    """Its tensors in order, a list of one tensor a picture as one; and how to put them together again."""

    def whole(value: Any) -> bool:  # noqa: ANN401
        return isinstance(value, list) and len(value) == batch and all(isinstance(each, Tensor) for each in value)

    return pytree.tree_flatten(found, is_leaf=whole)


def as_rows(value: Tensor, rows: int) -> Tensor:
    """A port's value (B, rows, …) as the pipeline has it, (rows·B, …)."""
    return value if rows == 1 else value.transpose(0, 1).flatten(0, 1)


def as_pictures(value: Tensor, rows: int) -> Tensor:
    """A pipeline's tensor (rows·B, …) as the port has it, (B, rows, …)."""
    return value if rows == 1 else value.unflatten(0, (rows, value.shape[0] // rows)).transpose(0, 1)


def of_latent(noises: Sequence[Tensor], number: int, others: Sequence[tuple[int, ...]], name: str) -> Tensor:
    """The noise of that number; where there is none, the shape of one of the `others`, which have fewer axes, is refused."""
    if not noises:
        flat(next(iter(others), ()), name)
    return noises[number]


def flat(noise: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Channels, height and width of a noise, which may have axes of one picture or frame before its sides."""
    before, sides = noise[1:-2], noise[-2:]
    inner = (*(before if len(before) == 1 else [length for length in before if length != 1]), *sides)
    if len(inner) != 3:
        raise UnsupportedError(f"{name} draws noise of {list(noise)}, and latents are (batch, channels, height, width).")
    return inner


def unpackings(latent: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Ways in which pipelines keep latents (B, C, H, W), each undone."""
    yield lambda kept: kept.reshape(latent.shape)
    for patch in (1, 2, 4):
        for order in ((0, 3, 1, 4, 2, 5), (0, 5, 1, 3, 2, 4)):
            if patch == 1 and order[1] == 5:
                continue

            def undo(kept: Tensor, patch: int = patch, order: tuple[int, ...] = order, like: Tensor = latent) -> Tensor:
                batch, channels, height, width = like.shape
                inner = (channels, patch, patch) if order[1] == 3 else (patch, patch, channels)
                return kept.reshape(batch, height // patch, width // patch, *inner).permute(order).reshape(like.shape)

            yield undo
    yield lambda kept: kept[: latent.shape[0]].reshape(latent.shape)  # of two branches, which have the same


def unpacked(way: int, kept: Tensor, latent: Tensor) -> Tensor:
    """Undo the way of that number in `unpackings`."""
    return list(unpackings(latent))[way](kept)


def packing(latent: Tensor, kept: Any, where: str) -> tuple[int, float]:  # noqa: ANN401 - what a pipeline made of it
    """Number of the way in which a latent is kept, and by what it is multiplied.

    Raises:
        UnsupportedError: in none that is known.

    """
    real = isinstance(kept, Tensor) and kept.ndim > 0 and not kept.is_meta
    twice = real and kept.shape[0] == 2 * latent.shape[0] and torch.equal(*kept.chunk(2))
    if real and kept.numel() == latent.numel() * (1 + twice):
        factor = float(kept.abs().max() / latent.abs().max())
        for number, way in enumerate(unpackings(latent)):
            try:
                undone = way(kept)
            except RuntimeError:
                continue
            if torch.allclose(undone, latent * factor, rtol=1e-5, atol=0):
                return number, factor
    shape = list(getattr(kept, "shape", ()))
    raise UnsupportedError(
        f"{where} keeps its latent of {list(latent.shape)} as {shape or type(kept).__name__}, in an order that is not known.\n"
        "  This is a gap in t2iexport."
    )


def replayed(results: Sequence[Any]) -> Callable[..., Any]:
    """An encoder of prompts that returns what was returned."""
    return replaying(list(results))


def replaying(waiting: list[Any]) -> Callable[..., Any]:
    """The same, which leaves those of a list that it has not returned yet."""
    return lambda *_, **__: waiting.pop(0)


def image_of(result: Any) -> Any:  # noqa: ANN401 - diffusers' outputs
    """The picture in what a pipeline returned."""
    return getattr(result, "images", None) if hasattr(result, "images") else result[0]


__all__ = ["Absent", "Encoding", "Finished", "Leaf", "OpenScale", "Play", "TokenCall"]
