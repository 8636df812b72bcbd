"""What lies in files of weights beside a model's weights: what does no harm and why, and whatever else, by name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from exporter.models.statements import MARKERS

#: Network → where single files keep it, beside diffusers' own name with a dot.
PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
}
#: What the names of a file with several networks start with.
STARTS = (*(start for starts in PREFIXES.values() for start in starts), *(f"{name}." for name in PREFIXES))
#: How a leftover's name reads → why the picture does not depend on it. Names as in single files and in folders.
HARMLESS = {
    r"(.*\.)?position_ids": "0, 1, 2 …, which the text tower counts itself",
    r"(.*\.)?attn_mask": "the causal mask of OpenCLIP's text tower, which makes it itself",
    r"(.*\.)?logit_scale": "scales likeness of text and image when CLIP is trained",
    r"(.*\.)?(text|visual)_projection(\.weight)?": "projects a pooled state, in a tower of which nobody reads that",
    r"(.*\.)?(vision_model|visual)\..*": "CLIP's image tower, saved with its text tower",
    r"(.*\.)?model_ema\..*": "running averages, which training needs; the weights themselves are taken, as everywhere",
    r"(.*\.)?loss\..*": "discriminator and perceptual loss of the VAE's training",
    r"(betas|alphas_cumprod(_prev)?|sqrt_.*|log_one_minus_.*|posterior_.*|logvar|lvlb_weights)": "ldm's noise schedule, which "
    "the sampler's scheduler has",
    r"(denoiser|model\.denoiser)\.(sigmas|log_sigmas)": "sgm's noise schedule; the sampler's scheduler has it",
    r"global_step|epoch|step|num_updates": "counts of a training",
    r"(.*\.)?scaled_fp8": "says that fp8 weights have scales, which are multiplied in",
    r"(.*\.)?(scale_input|input_scale)": "scale of activations for products in fp8; the recipe's precision computes in none",
}
#: Component of a pipeline → what it means that it is left out; of others nobody knows.
_COMPONENTS = {
    "safety_checker": "it looks at finished pictures",
    "feature_extractor": "it prepares pictures for networks that are left out too",
    "image_encoder": "it reads pictures for an IP-Adapter, and the recipe names none (model.ip_adapter)",
    "controlnet": "its pictures steer nothing, and what is drawn is the plain model's",
    "adapter": "its pictures steer nothing, and what is drawn is the plain model's",
    "motion_adapter": "nothing moves, and what is drawn is the plain model's",
    "watermark": "no watermark is drawn",
}
#: Options of a pipeline that are read, or that are about components that are left out by name.
_OPTIONS = {"force_zeros_for_empty_prompt", "requires_safety_checker", "add_watermarker"}
#: Pipelines of diffusers that draw the same with the same networks, from text or from a picture.
_SAME = re.compile(r"(StableDiffusion|StableDiffusionXL|LatentConsistencyModel)(Img2Img|Inpaint|InpaintLegacy)?Pipeline")
_FIELDS = Path(__file__).parent / "config_fields.json"
_HARMLESS = re.compile("|".join(HARMLESS))
#: In the name of a scheduler that undoes another noise than diffusion's.
_PROCESSES = ("FlowMatch", "EDM")
_LISTED = 8  # names in one sentence


def harmless(name: str) -> bool:
    """Whether a weight that has no place in the model may be left out without a word."""
    return _HARMLESS.fullmatch(name) is not None


def start(network: str, names: Iterable[str]) -> str:
    """What a network's weights start with in a single file, empty where it has none under a name of their own.

    Of several the one that most weights have: a merge may have left a weight or two under the prefix of its other parent.
    """
    counts = dict.fromkeys((f"{network}.", *PREFIXES.get(network, ())), 0)
    for name in names:
        for each in counts:
            counts[each] += name.startswith(each)
    most = max(counts, key=lambda each: counts[each])
    return most if counts[most] else ""


def networks(names: Collection[str], known: Iterable[str]) -> list[str]:
    """Of the networks of a model those that a single file has under a name of their own."""
    return [each for each in known if start(each, names)]


def of_file(where: str, names: Collection[str], read: Iterable[str]) -> str:
    """One sentence on the weights of a single file that stand under the name of no network that is read; empty for none.

    Of a file with one network alone, without a name of its own, all are that one's.
    """
    starts = tuple(filter(None, (start(each, names) for each in read)))
    if not starts:
        return ""
    left = [name for name in names if not name.startswith(starts) and not harmless(name)]
    return sentence(where, [name for name in left if not MARKERS.fullmatch(name)])


def sentence(where: str, names: Iterable[str]) -> str:
    """One sentence that names what is left out by how it begins; empty for nothing."""
    counts = Counter(name.partition(".")[0] for name in names)
    listed = [f"{start} ({count} weights)" if count > 1 else _whole(names, start) for start, count in sorted(counts.items())]
    return f"{where}: left out, of no network that is built: {brief(listed)}" if listed else ""


def components(index: Mapping[str, Any], used: Collection[str], pipeline: str) -> Iterator[str]:
    """A sentence on every entry of a `model_index.json` that the bundle has nothing of.

    Args:
        index: the file.
        used: components that are built, or read.
        pipeline: class in diffusers whose pictures the bundle draws.

    """
    own = str(index.get("_class_name"))
    if own != pipeline and not _SAME.fullmatch(own):
        yield f"the model is saved as {own}; the bundle draws what {pipeline} draws with its networks"
    for name, value in index.items():
        listed = isinstance(value, list | tuple) and bool(value)
        if name.startswith("_") or name in used or (listed and value[-1] is None):
            continue
        if listed:
            why = _COMPONENTS.get(name.rstrip("_0123456789"), "nothing here reads it")
            yield f"left out: {name} ({value[-1]}); {why}"
        elif name not in _OPTIONS and value is not None:
            yield f"left out: {name}: {json.dumps(value)} of model_index.json, which is no option that is read"


def scheduler(named: str, config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The class of a scheduler, and a sentence where its config was saved by another than the index names.

    As in diffusers the index decides, but not between noise processes: what a model was trained by its config says.
    """
    saved = str(config.get("_class_name", named))
    if saved == named:
        return named, ()
    if [word in saved for word in _PROCESSES] != [word in named for word in _PROCESSES]:
        return saved, (f"scheduler: model_index.json names {named}, and its config was saved by {saved}; the config counts",)
    return named, (f"scheduler: model_index.json names {named}, which diffusers takes, not the {saved} that saved its config",)


def fields(configs: Mapping[str, Mapping[str, Any]], used: Collection[str]) -> Iterator[str]:
    """A sentence on every field of a config that its class does not have, so that no library reads it."""
    index = configs["model_index"]
    for name in sorted(used & configs.keys()):
        config = configs[name]
        kind = str(config.get("_class_name") or index.get(name, ["", ""])[-1])
        known = _known("Scheduler" if name == "scheduler" else kind)
        left = [field for field in config if not field.startswith("_") and field not in known] if known else []
        if left:
            listed = brief([f"{field}: {json.dumps(config[field])}" for field in left])
            yield f"{name}: its config has {listed}, which {kind} does not read"


@cache
def _known(kind: str) -> frozenset[str]:
    """Fields of a class's config, of "Scheduler" every scheduler's; none of a class that is not listed."""
    listed = json.loads(_FIELDS.read_text(encoding="utf-8"))
    return frozenset(listed.get(kind, ()))


def brief(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")


def _whole(names: Iterable[str], start: str) -> str:
    return next(name for name in names if name.partition(".")[0] == start)
