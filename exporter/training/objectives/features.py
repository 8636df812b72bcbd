"""Which module of the teacher each watched module of the student learns from, and what both give out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from exporter.pruning.origin import Moved, came_from

Kind = Literal["last_of_stage", "self_attention", "cross_attention", "resnet", "feed_forward", "layers"]
_NAMED = {
    "self_attention": re.compile(r".*\.transformer_blocks\.\d+\.attn1"),
    "cross_attention": re.compile(r".*\.transformer_blocks\.\d+\.attn2"),
    "feed_forward": re.compile(r".*\.transformer_blocks\.\d+\.ff"),
    "resnet": re.compile(r".*\.resnets\.\d+"),
    "layers": re.compile(r".*\.(resnets|attentions)\.\d+"),
}


def pairs(kind: Kind, student: Any, teacher: Any, moved: Moved) -> list[tuple[str, str]]:  # noqa: ANN401 - diffusers' UNets
    """Names of modules whose outputs shall be alike: the student's, the teacher's.

    `last_of_stage` is BK-SDM's: what every down and up block gives on. Where a block has lost its sampler with the stage
    behind it, the last attention's (or resnet's) output stands in on both sides, as for BK-SDM-Tiny. The other kinds pair each
    module that stayed with itself: KOALA's is `self_attention`; `layers`, every resnet and every attention whole, is the
    layer-level loss of SSD-1B (2401.02677).
    """
    if kind == "last_of_stage":
        return [
            _last(f"{side}.{index}", student, teacher, moved)
            for side in ("down_blocks", "up_blocks")
            for index in range(len(getattr(student, side)))
        ]
    found = [(name, came_from(name, moved)) for name, _ in student.named_modules() if _NAMED[kind].fullmatch(name)]
    # An attention to the text that took the place of one to the picture itself learns from neither.
    return [(name, source) for name, source in found if _NAMED[kind].fullmatch(source) and not _crossed(student, kind, name)]


def _crossed(student: Any, kind: Kind, name: str) -> bool:  # noqa: ANN401
    return kind == "self_attention" and bool(student.get_submodule(name.rpartition(".")[0]).only_cross_attention)


def _last(name: str, student: Any, teacher: Any, moved: Moved) -> tuple[str, str]:  # noqa: ANN401
    source = came_from(name, moved)
    here, there = student.get_submodule(name), teacher.get_submodule(source)
    samplers = "downsamplers" if name.startswith("down") else "upsamplers"
    if (getattr(here, samplers) is None) == (getattr(there, samplers) is None):
        return name, source
    if all(len(getattr(block, "attentions", ())) for block in (here, there)):
        return (
            f"{name}.attentions.{len(here.attentions) - 1}.proj_out",
            f"{source}.attentions.{len(there.attentions) - 1}.proj_out",
        )
    return f"{name}.resnets.{len(here.resnets) - 1}", f"{source}.resnets.{len(there.resnets) - 1}"


class Watch:
    """Keeps what modules give out, between `arm` and `take`."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self._names, self._seen, self._armed = names, dict[str, Tensor](), False
        self._hooks = [network.get_submodule(name).register_forward_hook(self._saw(name)) for name in names]

    def arm(self) -> None:
        """Begin to keep."""
        self._seen, self._armed = {}, True

    def take(self) -> list[Tensor]:
        """What was kept, in the order of the names; gradient checkpointing calls modules again later, which is not kept."""
        self._armed = False
        found, self._seen = [self._seen[name] for name in self._names], {}
        return found

    def end(self) -> None:
        """Leave the modules as they were."""
        for hook in self._hooks:
            hook.remove()

    def _saw(self, name: str) -> Callable[..., None]:
        def saw(_module: nn.Module, _arguments: object, output: Any) -> None:  # noqa: ANN401 - a tensor or a tuple of such
            if self._armed:
                self._seen[name] = output[0] if isinstance(output, tuple) else output

        return saw
