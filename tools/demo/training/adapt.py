"""Stage ``adapt``: lets a trained denoiser read other text encoders, without training.

A denoiser reads the text through linear layers only: the keys and values of its
cross-attention and the first layer on the pooled embedding.  A least-squares
map from the new encoders' outputs to the old ones' can therefore be multiplied
into those weights.  What is left over is for further training.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from tools.demo.training import text, unet
from tools.demo.training.loop import save_atomically

BATCHES = 24
FIRST_SHARE = 800_000
"""Beyond the captions that the encoders were trained on."""
_DAMPING = 1e-5
_READERS = ("attn2.to_k.weight", "attn2.to_v.weight")


def least_squares(inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """The matrix (in, out) that maps inputs (N, in) nearest to outputs (N, out)."""
    x, y = inputs.double(), outputs.double()
    damping = _DAMPING * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(x.T @ x + damping, x.T @ y).float()


@torch.no_grad()
def _outputs(encoders: text.Encoders) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (N, 160) of all positions and pooled embeddings (M, 96) of the same captions each time."""
    hidden, pooled = [], []
    for share in range(FIRST_SHARE, FIRST_SHARE + BATCHES):
        # Guidance reads the empty prompt in every step, so it must fit too.
        texts = [*text.crossed_captions(share)[0][:-6], *[""] * 6]
        states, embedding = encoders(*encoders.tokens(texts))
        hidden.append(states.flatten(0, 1))
        pooled.append(embedding)
    return torch.cat(hidden), torch.cat(pooled)


@torch.no_grad()
def adapt(denoiser: UNet2DConditionModel, old: text.Encoders, new: text.Encoders) -> None:
    """Changes a denoiser that was trained with the old encoders to read the new ones."""
    (hidden, pooled), (new_hidden, new_pooled) = _outputs(old), _outputs(new)
    states_map = least_squares(new_hidden, hidden)
    for name, weight in denoiser.named_parameters():
        if name.endswith(_READERS):
            weight.copy_(weight @ states_map.T)
    with_one = torch.cat([new_pooled, torch.ones(len(new_pooled), 1)], 1)
    pooled_map = least_squares(with_one, pooled)
    weight, bias = (denoiser.get_parameter(f"add_embedding.linear_1.{name}") for name in ("weight", "bias"))
    reader = weight[:, : text.WIDTH_2].clone()
    bias.add_(reader @ pooled_map[-1])
    weight[:, : text.WIDTH_2] = reader @ pooled_map[:-1].T


def write(old: Path, work: Path) -> None:
    """Adapts the averaged denoiser of another work folder to this one's encoders.

    Args:
        old: Work folder with ``text`` and ``unet``.
        work: Work folder with ``tokenizer`` and ``text``; receives ``adapted``,
            with which the stage ``unet`` can start.

    """
    denoiser = unet.load(old / "unet")
    tokenizer = work / "tokenizer"
    adapt(denoiser, text.load(old / "text", tokenizer), text.load(work / "text", tokenizer))
    save_atomically({"ema": {"unet": denoiser.state_dict()}}, work / "adapted" / "checkpoint.pt")
