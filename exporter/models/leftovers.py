"""What lies in files of weights beside a model's weights: what does no harm and why, and whatever else, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

#: Network → where single files keep it, beside diffusers' own name with a dot.
PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
#: How a leftover's name reads → why the picture does not depend on it. Names as in single files and in folders.
HARMLESS = {
    r"(.*\.)?position_ids": "0, 1, 2 …, which the text tower counts itself",
    r"(.*\.)?logit_scale": "scales likeness of text and image when CLIP is trained",
    r"(.*\.)?(text|visual)_projection(\.weight)?": "projects a pooled state, in a tower of which nobody reads that",
    r"(.*\.)?(vision_model|visual)\..*": "CLIP's image tower, saved with its text tower",
    r"(.*\.)?model_ema\..*": "running averages, which training needs; the weights themselves are taken, as everywhere",
    r"((first_stage_model|vae)\.)?loss\..*": "discriminator and perceptual loss of the VAE's training",
    r"(betas|alphas_cumprod(_prev)?|sqrt_.*|log_one_minus_.*|posterior_.*|logvar|lvlb_weights)": "ldm's noise schedule, which "
    "the sampler's scheduler has",
    r"(denoiser|model\.denoiser)\.(sigmas|log_sigmas)": "sgm's noise schedule; the sampler's scheduler has it",
    r"cond_stage_model\.model\.transformer\.resblocks\.23\..*": "the last layer of SD 2's text tower, of which no pipeline reads",
    r"global_step|epoch|step|num_updates": "counts of a training",
    r"(.*\.)?scaled_fp8": "says that fp8 weights have scales, which are multiplied in",
    r"(.*\.)?(scale_input|input_scale)": "scale of activations for products in fp8; the recipe's precision computes in none",
}
_HARMLESS = re.compile("|".join(HARMLESS))
_LISTED = 8  # names in one sentence


def harmless(name: str) -> bool:
    """Whether a weight that has no place in the model may be left out without a word."""
    return _HARMLESS.fullmatch(name) is not None


def sentence(where: str, names: Iterable[str]) -> str:
    """One sentence that names what is left out by how it begins; empty for nothing."""
    counts = Counter(name.partition(".")[0] for name in names)
    listed = [f"{start} ({count} weights)" if count > 1 else _whole(names, start) for start, count in sorted(counts.items())]
    return f"{where}: left out, of no network that is built: {brief(listed)}" if listed else ""


def brief(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")


def _whole(names: Iterable[str], start: str) -> str:
    return next(name for name in names if name.partition(".")[0] == start)
