"""What takes the place of a pipeline's scheduler, tokenizers, noise and guidance scale while its own code is followed."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from diffusers import DDPMWuerstchenScheduler, SCMScheduler
from torch import SymInt, Tensor, nn
from torch.fx.experimental import _config
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from engines.errors import UnsupportedError
from exporter.families.tracing.following import correctors, smoothed
from exporter.families.tracing.following.exact_times import exact
from exporter.families.tracing.following.open_lengths import Repeated, of_any_length
from exporter.families.tracing.following.open_scale import OpenScale, as_a_number, spread
from exporter.families.tracing.following.origins import marked, origins

#: Schedulers whose last time is where the loop arrives, which no network is told.
_ARRIVING = (DDPMWuerstchenScheduler, SCMScheduler)


def stand_in(real: Any, **attributes: Any) -> Any:  # noqa: ANN401 - any object of diffusers or transformers
    """An object of the same class and content as `real`, but for some methods and properties."""
    kind = type(real)
    found = object.__new__(type(kind.__name__, (kind,), attributes))
    found.__dict__.update({name: value for name, value in vars(real).items() if name not in attributes})
    return found


#: Where a tensor keeps that it is all times, one a picture each, or one of them.
_TIMES, _TIME = "_times", "_time"


class Stepped(BaseException):  # an event; and no pipeline shall catch it
    """The pipeline called its scheduler's `step`.

    Attributes:
        output: of the model.
        sample: the latent as the pipeline keeps it.
        options: further arguments.

    """

    def __init__(self, output: Any, sample: Any, options: Mapping[str, Any]) -> None:  # noqa: ANN401 - tensors, or lists of such
        super().__init__()
        self.output, self.sample, self.options = output, sample, options


class Finished(BaseException):
    """The pipeline turns its picture into an array: `image`, (B, height, width, 3) in [0, 1]."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image


class Grid:
    """What a pipeline told its scheduler, and read off it."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.begins = self.scales = False


def scheduler(real: Any, time: Tensor, step: Callable[[Any, Any, Any, Mapping[str, Any]], Any], grid: Grid) -> Any:  # noqa: ANN401
    """A scheduler of the same class whose only time is `time`, and that changes nothing; `step` is called for its own."""
    correctors.refuse_unstepped(real)
    times = torch.stack([time, time]) if isinstance(real, _ARRIVING) else time[None]
    marked(times, *origins(time))  # for they are made of it before anything is followed

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        bound = inspect.signature(real.set_timesteps).bind(*args, **kwargs).arguments
        grid.asked = {name: value for name, value in bound.items() if value is not None and name not in ("device", "kwargs")}
        self.timesteps, self.num_inference_steps = times, 1

    # One that has none is asked for it too, by whoever asks its class whether it is one that has none.
    scales = hasattr(real, "scale_model_input")

    def scale_model_input(_self: Any, sample: Any, *_: Any, **__: Any) -> Any:  # noqa: ANN401
        grid.scales |= scales
        return sample

    def called(_self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        bound = inspect.signature(real.step).bind(*args, **kwargs).arguments
        output, at, sample, *_ = bound.values()
        return step(output, at, sample, bound)

    def set_begin_index(_self: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401
        grid.begins = True

    methods: dict[str, Any] = {"set_timesteps": set_timesteps, "step": called, "scale_model_input": scale_model_input}
    methods |= correctors.methods(real, time, step)
    methods |= {"set_begin_index": set_begin_index} if hasattr(real, "set_begin_index") else {}
    for name in ("set_timesteps", "step"):  # pipelines look at what the real one takes
        methods[name].__signature__ = inspect.signature(getattr(type(real), name))
    found = stand_in(real, **{**methods, "init_noise_sigma": property(lambda _: 1.0, lambda _self, _value: None)})
    found.timesteps = times
    setattr(times, _TIMES, True)
    return found


class Unreached:
    """A threshold that no time reaches, of which tensors ask whether it is greater than they are."""

    def __gt__(self, _time: object) -> bool:
        return True

    def __lt__(self, _time: object) -> bool:
        return False


class Answered(TorchFunctionMode):
    """Within it noise is what `draw` answers, scales become tensors, and the batch stays open where Python would divide it.

    `draw` answers a shape with noise, which is of `dtype` where the pipeline asks for no number format, by default torch's own.

    Raises:
        Finished: a tensor of pictures would become an array of numpy.

    """

    def __init__(self, draw: Callable[[Sequence[Any]], Tensor], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._draw, self._dtype = draw, dtype or torch.get_default_dtype()
        self._numbers: list[Tensor] = []

    def _noise(self, size: Sequence[Any]) -> Tensor:
        return self._draw(tuple(size[0] if len(size) == 1 and not isinstance(size[0], int | SymInt) else size))

    def _filled(self, value: Any, dtype: torch.dtype | None) -> Tensor | None:  # noqa: ANN401 - data of a tensor
        """A tensor of an open length made of a number or list; None of anything else."""
        if isinstance(value, Repeated) and type(value.value) in (int, float):
            return torch.full((value.times,), value.value, dtype=dtype)
        if (numbers := _a_picture_each(value)) is None:
            return None
        self._numbers.append(
            exact(numbers, dtype or (torch.get_default_dtype() if numbers.is_floating_point() else numbers.dtype))
        )
        return self._numbers[-1]

    def _joins(self, values: Any) -> bool:  # noqa: ANN401 - what is concatenated
        """Whether one of the numbers is repeated for a batch: there is one a picture already."""
        return isinstance(values, list | tuple) and any(values[0] is each for each in self._numbers)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "randn":
            return self._noise(kwargs.get("size", args)).to(kwargs.get("dtype") or self._dtype)
        if name == "numpy" and args[0].ndim == 4:
            raise Finished(args[0])
        if smoothed.antialiased(name, kwargs):
            func = smoothed.resized
            kwargs.pop("antialias")
        func = of_any_length(name, func, args, kwargs)
        if name == "tolist" and args[0].ndim > 1:
            return list(args[0].unbind())
        if name == "cat" and self._joins(args[0]):
            return _a_picture_each(args[0])
        filled = kwargs.get("fill_value", args[-1] if args else None)
        if name in ("full", "tensor") and (made := self._filled(filled, kwargs.get("dtype"))) is not None:
            return made
        if any(isinstance(each, OpenScale) for each in args) and not any(isinstance(each, Absent) for each in args):
            other = max((each for each in args if isinstance(each, Tensor)), key=lambda each: each.ndim)
            numbers: list[Any] = [each.beside(other) if isinstance(each, OpenScale) else each for each in args]
            if name == "lerp":  # which wants all of one number format
                numbers = [each.float() for each in numbers]
            args, wide = numbers, func
            func = lambda *given, **options: as_a_number(wide(*given, **options), other)  # noqa: E731
        if name == "chunk" and _outer(args, kwargs):
            count = args[1] if len(args) > 1 else kwargs["chunks"]
            length = args[0].shape[0] // count
            return tuple(args[0].narrow(0, length * index, length) for index in range(count))
        found = spread(args[0].reshape(-1), args[1]) if self._spreads(name, args) else func(*args, **kwargs)
        # As a loop over them does.
        return tuple(map(_as_time, found)) if name == "unbind" and hasattr(args[0], _TIMES) else found

    def _spreads(self, name: str, args: Sequence[Any]) -> bool:
        """Whether it is a time or another number, one a picture, of which a pipeline makes as many as it has rows."""
        if len(args) != 2 or name not in ("expand", "repeat"):
            return False
        if name == "expand":
            return args[0].ndim == 1 and not isinstance(args[1], tuple)
        # Of two axes: the first of all times, of which there is one a picture.
        return args[0].ndim == 2 or hasattr(args[0], _TIME) or any(args[0] is each for each in self._numbers)


class Unseeded(TorchFunctionMode):
    """Within it noise of no generator is its mean, 0: no seed reaches it, and a bundle makes the same picture of a seed.

    Attributes:
        drawn: how often there was any.

    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "randn" and kwargs.get("generator") is None:
            self.drawn += 1
            return torch.zeros(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        return func(*args, **kwargs)


def _as_time(time: Tensor) -> Tensor:
    """The same, (B,), which pipelines repeat and expand as if it were one number."""
    setattr(time, _TIME, True)
    return time


def _outer(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of `chunk` divides the first axis."""
    axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    return axis in (0, -args[0].ndim)


def _a_picture_each(value: Any) -> Tensor | None:  # noqa: ANN401 - data of a tensor
    """The numbers, one a picture, of which a pipeline makes a tensor as if they were one; None of anything else."""
    count: Any = 1
    if isinstance(value, Repeated):
        value, count = value.value, value.times
    while isinstance(value, list | tuple) and value and all(each is value[0] for each in value):
        value, count = value[0], count * len(value)
    numbers = value.tensor() if isinstance(value, OpenScale) else value
    if not isinstance(numbers, Tensor) or numbers.ndim != 1:
        return None
    return numbers if isinstance(count, int) and count == 1 else spread(numbers, count)


class Outlined(TorchDispatchMode):
    """Within it the meta device spreads: what networks without memory give has a shape, and everything else its value."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        tensors = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if not any(each.is_meta for each in tensors):
            return func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:  # noqa: SLF001
            return False  # of what a network computes: whether it may take a shorter way
        if func is torch.ops.aten.index.Tensor:
            args = args[0], _selected(args[1])
        moved = pytree.tree_map_only(Tensor, lambda each: each.to("meta"), (args, kwargs))
        moved = pytree.tree_map_only(torch.device, lambda _: torch.device("meta"), moved)
        found = func(*moved[0], **moved[1])
        if args and isinstance(args[0], Tensor) and not args[0].is_meta and func._schema.is_mutable:  # noqa: SLF001
            return args[0]
        return found


def _selected(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices of which a mask that has values is what it selects, so that how much that is stays known."""
    found = list[Tensor | None]()
    for each in indices:
        if isinstance(each, Tensor) and each.dtype == torch.bool and not each.is_meta:
            found += each.nonzero().unbind(1)
        else:
            found.append(each)
    return found


def real() -> AbstractContextManager[Any]:
    """Within it what is made has values, whatever device a caller who counts has chosen."""
    return torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext()


@contextmanager
def outlined() -> Iterator[None]:
    """Within it networks on the meta device are run for the shapes of what they give; a mask selects everything."""
    assumed = _config.patch(meta_nonzero_assume_all_nonzero=True)  # pyright: ignore[reportAttributeAccessIssue] - torch adds it
    with assumed, Outlined():
        yield


class Absent:
    """What a network that is not asked returns, of that shape: anything that is done with it gives the same."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._shape = tuple(shape)

    def _same(self, *_: Any, **__: Any) -> Absent:  # noqa: ANN401
        return self

    def chunk(self, count: int, *_: Any, **__: Any) -> tuple[Absent, ...]:  # noqa: ANN401
        """As many of it."""
        return (self,) * count

    def split(self, size: int, dim: int = 0) -> tuple[Absent, ...]:
        """As many as there are of that size; halves, such as a variance, of what has no shape."""
        return (self,) * (-(-self._shape[dim] // size) if self._shape else 2)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    @classmethod
    def lengths(cls, absent: Absent) -> tuple[int, ...]:
        """The shape of what one stands for."""
        return absent._shape

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Absent]:
        raise TypeError("what a network gives is gone through where it computes nothing")

    def __len__(self) -> int:
        return 2  # of what is split between two branches

    __call__ = __getitem__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __neg__ = _same
    __floordiv__ = __pow__ = _same

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        own = next(each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, cls))
        name = getattr(func, "__name__", "")
        return getattr(own, name)(*args[1:], **(kwargs or {})) if name in {"chunk", "split"} else own


def idle(network: Any, returned: Any) -> Any:  # noqa: ANN401 - a network of diffusers, and anything
    """A network that computes nothing."""
    return stand_in(network, __call__=lambda *_, **__: returned) if isinstance(network, nn.Module) else network


#: What diffusers imports where it is installed, and whose absence it notices when it is used.
_OPTIONAL = ("bs4", "ftfy")


def within(error: BaseException | None, components: Mapping[str, Any]) -> str:
    """Name of the component that was computing where an error was raised; empty where none was."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)] if error else []
    return next((name for name, each in components.items() if each is not None and any(each is own for own in owners)), "")


def refused(where: str, error: BaseException, components: Mapping[str, Any] | None = None) -> UnsupportedError:
    """What to raise where a pipeline's own code cannot be followed: with the line of diffusers that fails, and its component."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "diffusers" in each.filename]
    told = f"{frames[-1].filename.rpartition('site-packages/')[2]}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    place = f" in {name}" if (name := within(error, components or {})) else ""
    words = str(error).strip().splitlines() or [""]
    if isinstance(error, NotImplementedError) and (asked := re.match(r"(aten::\w+): attempted .* Meta tensors", words[0])):
        words = [f"{asked[1]} counts by the values of what a network computes, by which Python then goes on"]
    told += f"\n  pip install {error.name}" if isinstance(error, NameError) and error.name in _OPTIONAL else ""
    return UnsupportedError(f"{where}: its own code cannot be followed{place}: {type(error).__name__}: {words[0]}\n  {told}")
