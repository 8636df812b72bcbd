"""Tensors into modules: strictly from safetensors files, or made up from a seed."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from engines.errors import UnsupportedError
from exporter.models import component_files, leftovers
from exporter.models.depth_skip import DepthSkipUNet
from exporter.models.grouped_attention import GroupedAttentionUNet

#: Networks of this package, made of diffusers' own.
_OWN = {kind.__name__: kind for kind in (DepthSkipUNet, GroupedAttentionUNet)}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
#: diffusers before 0.18 spelled the attention of a VAE's mid block so, and published files still do.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_PART = "The file is not whole, or its weights are of another network than the config beside them, or model.architecture, says.\n"
_PART += "  Download or copy it again, or take both from one place."
_OTHER = "The weights are of another network than the config beside them, or model.architecture, says: take both from one place."
_LISTED = 12  # names in one message
_CHUNK = 1 << 18  # elements made up at a time: stays in the processor's cache


def skeleton(library: str, name: str, config: Mapping[str, Any], *, computed: bool = False) -> nn.Module:
    """Build a network of `library` (diffusers or transformers) on the meta device: shapes, no memory.

    What is `computed` by its constructor, and stands in no file, is there if it is asked for; else it is on that device too.

    Raises:
        UnsupportedError: the library has no such class, or the class refuses the config.

    """
    cls = _kind(library, name)
    try:
        with init_empty_weights(include_buffers=False) if computed else torch.device("meta"):
            # Some that diffusers keeps beside a pipeline are made as those of transformers.
            if library == "diffusers" and not _is_transformers(cls):
                return cls.from_config(dict(config))
            return cls(cls.config_class.from_dict(dict(config)))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UnsupportedError(f"{name} refuses its config: {error}") from error


def joined(entry: Sequence[str], networks: Sequence[nn.Module]) -> nn.Module:
    """Several networks as the one that runs them all, such as several ControlNets; `entry` has its library and class.

    Raises:
        UnsupportedError: the library has no such class.

    """
    return _kind(*entry)(list(networks)).eval()


def named(library: str, name: str) -> Any:  # noqa: ANN401 - a class
    """A library's class of that name, or the network that is made of one of its own; None where there is none."""
    if name in _OWN:
        return _OWN[name]
    if library == "diffusers" and name in component_files.BESIDE:
        return getattr(importlib.import_module(f"diffusers.pipelines.{component_files.BESIDE[name]}"), name, None)
    return getattr({"diffusers": diffusers, "transformers": transformers}.get(library), name, None)


def _kind(library: str, name: str) -> Any:  # noqa: ANN401 - a class of networks
    found = named(library, name)
    if found is None or not _is_network(found):
        raise UnsupportedError(f"{library} {_version(library)} has no network named {name!r}.\n  A newer {library} may know it.")
    return found


def _is_transformers(kind: type) -> bool:
    return issubclass(kind, transformers.PreTrainedModel)


def _is_network(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module)


def read(module: nn.Module, files: Iterable[Path], precision: str, component: str) -> nn.Module:
    """Fill a skeleton from safetensors files. Tensors that have the right type already stay mapped, not copied.

    Raises:
        UnsupportedError: missing or surplus weights, wrong shapes, NaN or infinite values, a damaged file.

    """
    tensors: dict[str, Callable[[], Tensor]] = {}
    for file in files:
        for name, get in opened(file).items():
            if name in tensors:
                raise UnsupportedError(f"{component}: {name!r} stands in two files, one of them {file}.\n  Keep one of them.")
            tensors[name] = get
    return put(module, tensors, precision, component)


def opened(file: Path) -> dict[str, Callable[[], Tensor]]:
    """Name → a function that maps the tensor into memory."""
    try:
        handle = safe_open(file, framework="pt")
        return {name: lambda name=name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UnsupportedError(f"{file} is not a whole safetensors file: {error}.\n  Download or copy it again.") from error


def put(module: nn.Module, tensors: Mapping[str, Callable[[], Tensor]], precision: str, component: str) -> nn.Module:
    """Fill a skeleton from named tensors, all of them and nothing else; eval mode, no gradients.

    Raises:
        UnsupportedError: as for `read`.

    """
    own = module.state_dict()
    wanted = {name: value.shape for name, value in own.items()}
    named = {spelled: name for name in tensors if (spelled := _spelling(name, wanted)) in wanted}
    named |= _renamed(module, tensors.keys() - named.values(), wanted)
    for name, same in (getattr(module, "all_tied_weights_keys", None) or {}).items():  # transformers saves one of both
        if name in wanted and name not in named and same in named:
            named[name] = named[same]
    missing = sorted(wanted.keys() - named.keys())
    lent = _lent(module)
    left = (name for name in tensors.keys() - named.values() if name.partition(".")[0] not in lent)
    surplus = sorted(name for name in left if not leftovers.harmless(name))
    problems = [
        f"{len(names)} weights {what}: {', '.join(names[:_LISTED])}{' …' if len(names) > _LISTED else ''}"
        for names, what in ((missing, "are missing from the file"), (surplus, "in the file have no place in the model"))
        if names
    ]
    if problems:
        raise UnsupportedError(
            f"{component}: weights and config do not belong together.\n  "
            + "\n  ".join(problems)
            + f"\n  {_OTHER if surplus else _PART}"
        )
    state = {spelled: _read(component, name, tensors[name](), own[spelled], precision) for spelled, name in named.items()}
    module.load_state_dict(state, strict=True, assign=True)
    return _finished(module, component)


def _lent(module: nn.Module) -> set[str]:
    """What a network's constructor leaves empty and its `from_…` takes from another network, so that it was saved with both."""
    methods = (each for name, each in vars(type(module)).items() if name.startswith("from_") and isinstance(each, classmethod))
    trees = (ast.walk(ast.parse(textwrap.dedent(inspect.getsource(each.__func__)))) for each in methods)
    pairs = ((node.targets[0], node.value) for tree in trees for node in tree if isinstance(node, ast.Assign))
    both = ((own, other) for own, other in pairs if isinstance(own, ast.Attribute) and isinstance(other, ast.Attribute))
    return {own.attr for own, other in both if own.attr == other.attr and getattr(module, own.attr, module) is None}


def cast(module: nn.Module, precision: str, component: str) -> nn.Module:
    """Change the type of a network whose weights were changed after they were read.

    Raises:
        UnsupportedError: NaN or infinite values.

    """
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            _checked(component, name, value, value.shape, precision)
    # By torch's own method: that of diffusers' networks tells of weights to be kept in float32, and names none.
    return nn.Module.to(module, DTYPES[precision])


def make_up(module: nn.Module, seed: int, precision: str, component: str) -> nn.Module:
    """Fill a skeleton with numbers that depend on the seed and each weight's name only.

    Matrices and kernels: uniform with variance 1/fan_in, so that activations keep their size and half precision stays finite;
    scales of norms: 1; biases: 0. The same weights, rounded, in every precision.
    """
    state: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        state[name] = fill(torch.empty(value.shape, dtype=DTYPES[precision]), f"{seed}/{component}/{name}")
    module.load_state_dict(state, strict=True, assign=True)
    return _finished(module, component)


def fill(tensor: Tensor, key: str) -> Tensor:
    """Fill one weight as `make_up` does; `key` is `seed/component/name`."""
    if tensor.ndim < 2:
        return tensor.fill_(0.0 if key.endswith("bias") else 1.0)
    _uniform_(tensor, key)
    return tensor


def _uniform_(tensor: Tensor, key: str) -> None:
    # numpy keeps the raw stream of a bit generator forever, and it is several times faster than drawing floats.
    bits = np.random.SFC64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
    scale = math.sqrt(3 / math.prod(tensor.shape[1:])) / 2**15
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), _CHUNK):
        part = flat[start : start + _CHUNK]
        raw = bits.random_raw(-(-part.numel() // 4)).view(np.int16)[: part.numel()]
        part.copy_(torch.from_numpy(raw).float().mul_(scale))


def _spelling(name: str, wanted: Mapping[str, Any]) -> str:
    """Find the name under which the module knows a weight: CLIP's two spellings, and the old attention of a VAE."""
    if name in wanted:
        return name
    for old, new in _OLD_ATTENTION.items():
        if old in name and name.replace(old, new) in wanted:
            return name.replace(old, new)
    bare = name.removeprefix("text_model.")
    return bare if bare in wanted else f"text_model.{name}"


def _renamed(module: nn.Module, names: Iterable[str], wanted: Mapping[str, Any]) -> dict[str, str]:
    """Weights that a network of transformers has under other names than its files, as its own loader would rename them."""
    names = sorted(names)
    if not names or not isinstance(module, transformers.PreTrainedModel):
        return {}
    known = [each for each in get_model_conversion_mapping(module) if isinstance(each, WeightRenaming)]
    found = {rename_source_key(name, known, [], module.base_model_prefix, dict(wanted))[0]: name for name in names}
    return {name: old for name, old in found.items() if name in wanted}


def _read(component: str, name: str, tensor: Tensor, own: Tensor, precision: str) -> Tensor:
    if own.is_floating_point() and not tensor.is_floating_point():
        raise UnsupportedError(
            f"{component}: {name!r} is of whole numbers ({str(tensor.dtype).removeprefix('torch.')}), which mean nothing without "
            "the scales that they were quantized with.\n  Take the file in fp16, bf16, fp32 or fp8; the pass quantize makes int8."
        )
    return _checked(component, name, tensor, own.shape, precision)


def _checked(component: str, name: str, tensor: Tensor, shape: torch.Size, precision: str) -> Tensor:
    if tensor.shape != shape:
        raise UnsupportedError(
            f"{component}: {name!r} is {list(tensor.shape)} in the file and {list(shape)} in the model.\n  {_OTHER}"
        )
    tensor = tensor.to(DTYPES[precision])
    # The sum is cheap and finite almost always; only when it is not does every element have to be looked at.
    if not tensor.sum(dtype=torch.float32).isfinite() and not (finite := tensor.isfinite()).all():
        raise UnsupportedError(
            f"{component}: {name!r} has {int((~finite).sum())} values that are NaN or infinite in {precision}.\n"
            "  The file is damaged, or its weights need fp32 or bf16."
        )
    return tensor


def _finished(module: nn.Module, component: str) -> nn.Module:
    for path, owner in module.named_modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_meta:  # not part of a file: what the constructor would have computed
                if name != "position_ids":
                    raise UnsupportedError(
                        f"{component}: cannot compute the buffer {path}.{name}.\n  This is a gap in t2iexport."
                    )
                setattr(owner, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return module.eval().requires_grad_(requires_grad=False)


def _version(library: str) -> str:
    return {"diffusers": diffusers, "transformers": transformers}[library].__version__
