"""The scene of a prompt that explains most of a picture, and what it leaves: a network with a gradient, which nothing trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.demo.scenes import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIDE, SIZES, coverage

#: Widths that are tried of an object, in pixels, and by how many pixels it is moved from where the whole ones have it.
_WIDTHS = {"small": (14, 16, 18), "large": (26, 28, 30)}
_ALL = [width for each in _WIDTHS.values() for width in each]
_SHIFTS = (-0.5, 0.0, 0.5)
#: Side of a template; a border of none is around it.
_TEMPLATE = 33
#: By how much the shape that is stated must explain more than any other near it, as a share of the object; more is worth no more.
_LEAD = 0.1
_NEVER = -1e9
#: Words by which captions say a relation, each of them in no other place.
_WORDS = {"left of": ["left"], "right of": ["right"], "above": ["above", "over"], "below": ["below", "under"]}


def templates() -> np.ndarray:
    """Ideal objects by shape, width and shift: float32 (6, 6, 9, _TEMPLATE + 2, _TEMPLATE + 2)."""
    middle, whole = _TEMPLATE // 2 + 1.5, _TEMPLATE + 2
    shifts = [(across, down) for down in _SHIFTS for across in _SHIFTS]
    return np.array(
        [[[coverage(shape, width, middle + x, middle + y, whole) for x, y in shifts] for width in _ALL] for shape in SHAPES],
        np.float32,
    )


def vocabulary(tokenizer: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - the library's
    """What each id says: the number of a colour, a shape, a size, a background or a relation; -1 for nothing of that kind."""
    kinds = {"colour": {name: [name] for name in COLOURS}, "shape": {name: [name] for name in SHAPES}}
    kinds |= {"size": {name: [name] for name in SIZES}, "ground": {name: [name] for name in BACKGROUNDS}}
    kinds["relation"] = {name: _WORDS[name] for name in RELATIONS}
    found = {}
    for kind, names in kinds.items():
        found[kind] = np.full(tokenizer.get_vocab_size(), -1)
        for number, words in enumerate(names.values()):
            for word in words:
                (said,) = tokenizer.encode(word, add_special_tokens=False).ids[:1]
                found[kind][said] = number
    return found


class SceneNetwork(nn.Module):
    """The prompt's scene that explains most of a picture, and what it leaves."""

    says_colour: Tensor
    says_shape: Tensor
    says_size: Tensor
    says_ground: Tensor
    says_relation: Tensor
    table: Tensor
    inner: Tensor
    area: Tensor
    colours: Tensor
    grounds: Tensor
    reach: Tensor
    centre: Tensor
    fits: Tensor
    pixels: Tensor

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - the library's
        super().__init__()
        table = templates()
        inner = table[:, :, len(_SHIFTS) ** 2 // 2, 1:-1, 1:-1]
        tables = {"table": table, "inner": inner.reshape(-1, 1, _TEMPLATE, _TEMPLATE), "area": (inner**2).sum((2, 3))}
        tables |= {"colours": np.array([*COLOURS.values()]) / 255, "grounds": np.array([*BACKGROUNDS.values()]) / 255}
        # Of each line that an object may be on: half of its width, and where its middle is.
        tables |= {"reach": np.repeat(np.array(_ALL) / 2, SIDE), "centre": np.tile(np.arange(SIDE), len(_ALL))}
        for name, array in tables.items():
            self.register_buffer(name, torch.from_numpy(array.astype(np.float32)))
        for name, array in vocabulary(tokenizer).items():
            self.register_buffer(f"says_{name}", torch.from_numpy(array))
        sizes = [[size in (-1, number) for number in range(len(SIZES)) for _ in range(3)] for size in range(-1, len(SIZES))]
        self.register_buffer("fits", torch.tensor(sizes))
        self.register_buffer("pixels", torch.arange(SIDE))

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        """Pictures in [0, 1] (batch, SIDE, SIDE, 3) and ids (batch, length) → how near each is to its scene, (batch,)."""
        said, pixels = self.read(ids), image.detach()
        ground = self.ground(pixels, said["ground"])
        towards = [self.colours[said["colour"][:, each]] - ground for each in range(2)]
        fields = [((pixels - ground[:, None, None]) * each[:, None, None]).sum(-1) for each in towards]
        lengths = [(each**2).sum(-1) for each in towards]
        gains = [self.gains(field, length) for field, length in zip(fields, lengths, strict=True)]
        rows = torch.arange(ids.shape[0], device=ids.device)
        own = []
        for each in range(2):
            fits = self.fits[said["size"][:, each] + 1]
            gain = gains[each][rows, said["shape"][:, each]]
            own.append(torch.where(fits[..., None, None], gain, torch.full_like(gain, _NEVER)))
        places = self.placed(own, said["relation"], said["two"])
        both = said["two"].float()
        left, wrong = [], []
        scene, rest = ground[:, None, None].expand_as(image), torch.ones_like(fields[0])
        for each in range(2):
            there = both if each else torch.ones_like(both)
            width, y, x = places[each]
            shape = said["shape"][:, each]
            cover = self.finest(fields[each], lengths[each], shape, width, y, x)
            rival = self.rival(gains[each], fields[each], lengths[each], shape, y, x)
            near = (functional.max_pool2d(cover[:, None], 7, 1, 3)[:, 0] > 0.05).float() * there[:, None, None]
            scene = scene + (cover * there[:, None, None])[..., None] * towards[each][:, None, None]
            rest = rest * (1 - near)
            live = ((image - ground[:, None, None]) * towards[each][:, None, None]).sum(-1)
            area = cover.sum((1, 2)) * lengths[each]
            length = lengths[each][:, None, None]
            lead = (2 * (cover - rival) * live - length * (cover**2 - rival**2)).sum((1, 2)) / area
            wrong.append((near / area[:, None, None], there))
            left.append(lead.clamp(max=_LEAD) * there + _LEAD * (1 - there))
        off = ((image - scene) ** 2).sum(-1)
        first, second = ((off * weight).sum((1, 2)) for weight, _ in wrong)
        stray = (off * rest).sum((1, 2)) / 16
        return 100 - 100 * (torch.maximum(first, second) + stray) - 50 * (_LEAD - torch.minimum(left[0], left[1]))

    def read(self, ids: Tensor) -> dict[str, Tensor]:
        """What the prompts say: of two objects, the second being the first again where there is one; -1 is unsaid."""
        colours, found = self.says_colour[ids], {}
        flags = (colours >= 0).long()
        first = flags.argmax(1)
        last = ids.shape[1] - 1 - flags.flip(1).argmax(1)
        at = torch.stack([first, torch.where(flags.sum(1) > 0, last, first)], 1)
        found["colour"] = colours.gather(1, at).clamp(min=0)
        found["size"] = self.says_size[ids].gather(1, (at - 1).clamp(min=0))
        found["shape"] = self.says_shape[ids].gather(1, (at + 1).clamp(max=ids.shape[1] - 1)).clamp(min=0)
        found["ground"] = self.says_ground[ids].amax(1)
        found["relation"] = self.says_relation[ids].amax(1)
        found["two"] = at[:, 0] != at[:, 1]
        return found

    def ground(self, pixels: Tensor, said: Tensor) -> Tensor:
        """The background that is said, else the one that most of the picture is near: its colour."""
        near = ((pixels[:, :, :, None] - self.grounds) ** 2).sum(-1) < (40 / 255) ** 2
        return self.grounds[torch.where(said >= 0, said, near.float().mean((1, 2)).argmax(1))]

    def gains(self, field: Tensor, length: Tensor) -> Tensor:
        """What of the squared error each object takes away at each place: (batch, shapes, widths, SIDE, SIDE)."""
        seen = functional.conv2d(field[:, None], self.inner, padding=_TEMPLATE // 2)
        seen = seen.reshape(-1, len(SHAPES), len(_ALL), SIDE, SIDE)
        return 2 * seen - (length[:, None, None] * self.area)[..., None, None]

    def placed(self, own: list[Tensor], relation: Tensor, two: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Width, row and column of each object, apart from each other and in the relation that is said."""
        upright = relation >= 2  # above and below
        lines = [torch.where(upright[:, None, None], each.amax(3), each.amax(2)).flatten(1) for each in own]
        sign = torch.where(relation % 2 == 0, 1.0, -1.0)  # the first is left of the second, or above it
        apart = (self.centre[None, None, :] - self.centre[None, :, None]) * sign[:, None, None]
        far = apart >= self.reach[:, None] + self.reach[None] + 1
        pairs = lines[0][:, :, None] + lines[1][:, None, :]
        best = torch.where(far, pairs, torch.full_like(pairs, _NEVER)).flatten(1).argmax(1)
        chosen = [torch.where(two, best // lines[0].shape[1], lines[0].argmax(1)), best % lines[0].shape[1]]
        rows, found = torch.arange(two.shape[0], device=two.device), []
        for each in range(2):
            width, place = chosen[each] // SIDE, chosen[each] % SIDE
            line = torch.where(upright[:, None], own[each][rows, width, place], own[each][rows, width, :, place])
            across = line.argmax(1)
            found.append((width, torch.where(upright, place, across), torch.where(upright, across, place)))
        return found

    def finest(self, field: Tensor, length: Tensor, shape: Tensor, width: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Coverage (batch, SIDE, SIDE) of an object at a place, moved by less than a pixel to where it explains most."""
        border = _TEMPLATE // 2 + 1
        rows, columns = ((self.pixels[None] - each[:, None] + border).clamp(0, 2 * border) for each in (y, x))
        moves = torch.arange(len(_SHIFTS) ** 2, device=y.device)
        index = shape[:, None, None, None], width[:, None, None, None], moves[None, :, None, None]
        cover = self.table[(*index, rows[:, None, :, None], columns[:, None, None, :])]
        gain = (2 * cover * field[:, None] - length[:, None, None, None] * cover**2).sum((2, 3))
        return cover[torch.arange(y.shape[0], device=y.device), gain.argmax(1)]

    def rival(self, gains: Tensor, field: Tensor, length: Tensor, shape: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Coverage of the object of another shape that explains most within three pixels, as `finest`."""
        away = [(self.pixels[None] - each[:, None]).abs() for each in (y, x)]
        near = torch.maximum(away[0][:, :, None], away[1][:, None, :]) <= 3
        other = torch.arange(len(SHAPES), device=y.device)[None] != shape[:, None]
        asked = near[:, None, None] & other[:, :, None, None, None]
        best = torch.where(asked, gains, torch.full_like(gains, _NEVER)).flatten(1).argmax(1)
        cells = SIDE * SIDE
        kind, width = best // (len(_ALL) * cells), best // cells % len(_ALL)
        return self.finest(field, length, kind, width, best % cells // SIDE, best % SIDE)
