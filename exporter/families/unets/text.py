"""CLIP's text tower under the uniform contract: chunks, weights of tokens and skipped layers are part of its graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from exporter.recipe.prompts import Prompts


class TextEncoder(nn.Module):
    """CLIP text tower: ids (B, branches, L) → hidden states (B, branches, L, C), and pooled (B, branches, P) where asked for.

    Of ids in several chunks each is encoded by itself, and the pooled state is the first one's, as in A1111 and ComfyUI.

    Args:
        encoder: transformers' CLIPTextModel or CLIPTextModelWithProjection.
        penultimate: take the states before the last layer, without the final norm, instead of those after it.
        pooled: return `text_embeds` too.
        empty: ids of the empty prompt, of one chunk.
        zeros: where the first branch is the empty prompt, its outputs become zeros.
        prompts: how the recipe has them read.

    """

    encoder: Any
    empty: Tensor | None

    def __init__(
        self,
        encoder: Any,  # noqa: ANN401 - transformers' own model
        *,
        penultimate: bool,
        pooled: bool,
        empty: Tensor | None = None,
        zeros: bool = False,
        prompts: Prompts,
    ) -> None:
        super().__init__()
        self.encoder, self.penultimate, self.pooled, self.zeros = encoder, penultimate, pooled, zeros
        self.skip, self.chunks, self.syntax = prompts.clip_skip, prompts.chunks, prompts.weights
        self.downweighted = prompts.downweighted if self.syntax == "compel" else 0
        self.register_buffer("empty", empty, persistent=False)

    def forward(self, ids: Tensor, weights: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Encode every branch of every batch item by itself; `weights` (B, branches, L), of how much each token counts."""
        rows = ids.flatten(0, 1) if self.chunks == 1 else ids.reshape(-1, ids.shape[2] // self.chunks)
        shares, seen = None, dict[str, Tensor]()
        if self.syntax == "compel" and self.empty is not None:
            if weights is not None and self.downweighted:
                mask, shares = _without(weights.flatten(0, 1), self.chunks, self.downweighted)
                again = rows.reshape(-1, 1, self.chunks, rows.shape[1]).expand(-1, self.downweighted, -1, -1)
                seen["attention_mask"] = torch.cat([torch.ones_like(rows), mask, torch.ones_like(self.empty[None])])
                rows = torch.cat([rows, again.reshape(-1, rows.shape[1])])
            rows = torch.cat([rows, self.empty[None]])
        found = self.encoder(rows, output_hidden_states=self.penultimate or self.skip is not None, **seen)
        usual = found.hidden_states[-2] if self.penultimate else found.last_hidden_state
        state = self._weighted(ids, usual, weights, shares)
        if self.skip is not None:
            # diffusers skips for the prompt alone.
            skipped = self._weighted(ids, self._skipped(found.hidden_states, self.skip), weights, shares)
            state = torch.cat([state[:, :1], skipped[:, 1:]], dim=1) if ids.shape[1] == 2 else skipped
        if not self.pooled:
            return self._kept(ids, state)
        return self._kept(ids, state), self._kept(ids, self._first(ids, found.text_embeds))

    def _skipped(self, states: tuple[Tensor, ...], skip: int) -> Tensor:
        if self.penultimate:
            return states[-(skip + 2)]
        # Of transformers 5 the tower itself has the norm, before that its `text_model`.
        return getattr(self.encoder, "text_model", self.encoder).final_layer_norm(states[-(skip + 1)])

    def _weighted(self, ids: Tensor, state: Tensor, weights: Tensor | None, shares: Tensor | None) -> Tensor:
        """States of all chunks (rows, L, C), weighted and joined: (B, branches, chunks * L, C)."""
        state = state.float()
        if weights is not None and self.syntax == "compel":
            # Away from what the empty prompt has in the same place.
            state, empty = state[:-1], state[-1:]
            if shares is not None:
                state = self._mixed(ids, state, shares)
            state = empty + (state - empty) * weights.reshape(-1, state.shape[1], 1)
        elif weights is not None and self.syntax == "a1111":
            # Each chunk keeps its mean.
            mixed = state * weights.reshape(-1, state.shape[1], 1)
            state = mixed * (state.mean((1, 2), keepdim=True) / mixed.mean((1, 2), keepdim=True))
        if self.chunks == 1:
            return state.reshape(ids.shape[0], ids.shape[1], *state.shape[1:])
        return state.reshape(ids.shape[0], ids.shape[1], ids.shape[2], state.shape[2])

    def _mixed(self, ids: Tensor, state: Tensor, shares: Tensor) -> Tensor:
        """Of every text the mean, by its shares (texts, 1 + K), of itself and of what it is without each of its K groups."""
        count, length = ids.shape[0] * ids.shape[1] * self.chunks, state.shape[1]
        own = state[:count].reshape(-1, 1, self.chunks * length, state.shape[2])
        without = state[count:].reshape(-1, self.downweighted, self.chunks * length, state.shape[2])
        mixed = (torch.cat([own, without], dim=1) * shares[:, :, None, None]).sum(1)
        return mixed.reshape(-1, length, state.shape[2])

    def _first(self, ids: Tensor, pooled: Tensor) -> Tensor:
        """Pooled states of the first chunks, (B, branches, P)."""
        pooled = pooled.float()
        if self.syntax == "compel" and self.empty is not None:  # and not those of what was read beside the texts
            pooled = pooled[: ids.shape[0] * ids.shape[1] * self.chunks]
        if self.chunks == 1:
            return pooled.reshape(ids.shape[0], ids.shape[1], pooled.shape[1])
        return pooled.reshape(ids.shape[0], ids.shape[1], self.chunks, pooled.shape[1])[:, :, 0]

    def _kept(self, ids: Tensor, state: Tensor) -> Tensor:
        if not self.zeros or self.empty is None:
            return state
        empty = self.empty if self.chunks == 1 else self.empty.repeat(self.chunks)
        blank = (ids == empty).all(-1) & (torch.arange(ids.shape[1]) == 0)  # (B, branches): the negative one, left empty
        return state.masked_fill(blank.reshape(*blank.shape, *[1] * (state.ndim - 2)), 0.0)


def _without(weights: Tensor, chunks: int, most: int) -> tuple[Tensor, Tensor]:
    """For each group of words that count less than 1, a text in which they are not seen, and its share in the result.

    A group is a run of tokens that count alike; what stands around a chunk ends none. As compel's `DownweightMode.MASK`: at a
    weight of 1 what is without them has no share, at 0.5 as much as the text itself, and at 0 all.

    Args:
        weights: (texts, chunks * L), of every token.
        chunks: of a text.
        most: groups, K.

    Returns:
        int64 masks, (texts * K * chunks, L), 1 for what is seen; shares (texts, 1 + K), which add up to 1, the text's own first.

    """
    inner = weights.reshape(weights.shape[0], chunks, -1)[:, :, 1:-1].flatten(1)
    low = inner < 1
    before = torch.cat([torch.ones_like(inner[:, :1]), inner[:, :-1]], dim=1)
    number = (low & (inner != before)).long().cumsum(1) * low  # 0 for what counts 1 and more, else 1, 2, …
    group = number[:, None] == torch.arange(1, most + 1)[None, :, None]
    factor = torch.where(group, inner[:, None], 1.0).amin(-1).clamp(min=1e-5)
    shares = torch.cat([torch.ones_like(factor[:, :1]), torch.tan((1 - factor) * (math.pi / 2))], dim=1)
    seen = (~group).long().reshape(-1, chunks, inner.shape[1] // chunks)
    seen = nn.functional.pad(seen, (1, 1), value=1).flatten(0, 1)
    return seen, shares / shares.sum(1, keepdim=True)
