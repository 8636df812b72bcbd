"""What a model or a file is when it is no text-to-image model that can be built, and what would work instead."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.models.recognition import Outline, Shapes, outline

Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of model or file.

    Attributes:
        name: with its article.
        way: what would work, as a sentence.

    """

    name: str
    way: str

    def sentence(self, where: object, told: str = "") -> str:
        """What, where, what to do."""
        return f"{where} is {self.name}{f': {told}' if told else ''}.\n  {self.way}"


_BASE = "Take the text-to-image model that it was made from."
LORA = Kind("a LoRA, not a model", "Name a model as model.source, and this file under model.loras.")
EMBEDDING = Kind(
    "a textual inversion, not a model",
    "Name a model as model.source, and this file under model.embeddings.",
)
REFINER = Kind(
    "SDXL's refiner, which only improves another model's picture",
    "Take the base model, such as sdxl-base's, and the refiner as the diffusers folder of its StableDiffusionXLImg2ImgPipeline.",
)
INPAINTING = Kind(
    "an inpainting model",
    f"{_BASE} A bundle with vae_encoder in its components fills a mask with that. Saved as the StableDiffusionInpaintPipeline "
    "that it is, it builds too.",
)
UNET = Kind(
    "a UNet alone",
    "Name the model that it belongs to as model.base: a hub id, a diffusers folder or a whole file; the rest comes from there.",
)
VAE = Kind("a VAE alone", "Name a model as model.source, and this file as model.vae.")
TOWER = Kind("a text encoder alone", "Name a whole model as model.source.")
NO_VAE = Kind(
    "a model without its VAE", "Name another's as model.vae: a folder, a hub id such as stabilityai/sdxl-vae, or a file."
)
HALF_VAE = Kind("a model with half a VAE", NO_VAE.way)
NO_TEXT = Kind("a model without a text encoder", UNET.way)
NO_UNET = Kind("a model without its UNet", "Name a whole model as model.source.")
DECODER = Kind(
    "a VAE's decoder alone",
    "Name a model as model.source, and this file as components.vae_decoder.passes: [{swap: {source: FILE}}].",
)
UPSCALER = Kind("an upscaler, which enlarges finished pictures", "Take a text-to-image model, and enlarge what it draws.")
IMAGE_TOWER = Kind("CLIP's image tower, which reads pictures", "Take a text-to-image model.")
LANGUAGE = Kind("a language model or a text encoder that is none of CLIP's", "Take a model with CLIP text encoders.")
CASCADE = Kind("a stage of Stable Cascade or Würstchen", "Take a text-to-image model of SD's or SDXL's kind.")
KARLO = Kind(
    "Karlo's unCLIP, which draws in three stages, the last of which enlarges what the second draws",
    "A bundle samples one stage, and one before it. Take a StableUnCLIPPipeline, or a StableUnCLIPImg2ImgPipeline for pictures.",
)
HYPERNETWORK = Kind("a hypernetwork", "It changes a model while it draws, and is not built; take a LoRA of the same purpose.")
TINY = Kind(
    "a tiny autoencoder in its own repository's names",
    "Take it in diffusers' names: madebyollin/taesd, or madebyollin/taesdxl for SDXL.",
)
CONTROL = Kind("a ControlNet", "Take its folder in diffusers' layout, and name the model that it steers as model.base.")
ADAPTER = Kind(
    "an adapter (T2I-Adapter or IP-Adapter)",
    "Name the model that it steers as model.source. An IP-Adapter goes into model.ip_adapter: {source: FILE}, with its "
    "image_encoder folder beside it; a T2I-Adapter is saved within its pipeline.",
)
VIDEO = Kind("a video model", "Take a model that makes still pictures.")
AUDIO = Kind("an audio model", "Take a model that makes pictures.")
TRANSFORMER = Kind("a diffusion transformer, whose single files are not read", "Take it as a diffusers folder or hub id.")
WRAPPED = Kind(
    "a model whose weights' names have a training's wrapper in them (state_dict., module., _orig_mod.)",
    "Save it once more with names that are without that, such as unwrapped models have them.",
)
OTHER_INPUTS = Kind("a model with other inputs than text", _BASE)
PACKED = Kind("packed in 4 bits (nf4 or fp4)", "Take the file in fp16, bf16, fp32 or fp8.")
CLASSES = Kind(
    "a model whose UNet has an input that is neither text, time nor size",
    "Take a plain text-to-image model; unCLIP, class-conditional and audio models have such an input. unCLIP's builds as the "
    "diffusers folder of its StableUnCLIPImg2ImgPipeline.",
)
TEXT = Kind("a model whose text encoder is none of CLIP's", "Take a model with CLIP text encoders.")
LDM3D = Kind("a VAE whose pictures have other channels than red, green and blue", "Take a plain text-to-image model.")

#: Channels that a UNet takes beside the latent's four make it another kind of model.
_CHANNELS = {
    9: INPAINTING,
    8: Kind(
        "an image-editing model (InstructPix2Pix)",
        f"{_BASE} Saved as the StableDiffusionInstructPix2PixPipeline that it is, it builds too.",
    ),
    5: Kind("a depth-to-image model", "Take the diffusers folder of its StableDiffusionDepth2ImgPipeline."),
    7: Kind(
        "an upscaling model",
        "Take the diffusers folder of its StableDiffusionUpscalePipeline, with the scheduler of its pictures' noise.",
    ),
}
#: Names that only one kind of file has, the most particular first.
_MARKS: Mapping[str, Kind] = {
    r".*\.(absmax|quant_state\..*|nested_absmax|quant_map)": PACKED,
    r".*(\.|_)(lora_(up|down|mid|A|B)|hada_w[12]_[ab]|lokr_w[12](_[ab])?|oft_(blocks|diag)|dora_scale).*": LORA,
    r"(lora_(unet|te\d?)|lycoris(_\w+)?|(b|g)?oft_unet)_.*": LORA,
    r"emb_params|clip_[lg]|<[^>]*>|\*": EMBEDDING,
    r"(.*\.)?(motion_modules|time_stack|time_mixer|temporal_transformer|temopral_conv)\..*": VIDEO,
    r"(.*\.)?(vocoder|cond_stage_model\.(audio_branch|model\.audio_branch))\..*": AUDIO,
    r"(model\.diffusion_model\.|transformer\.)?(joint|double|single|single_transformer)_blocks\..*": TRANSFORMER,
    r"(model\.diffusion_model\.)?(double_stream_blocks|double_layers|cap_embedder|img_in|txt_in|x_embedder)\..*": TRANSFORMER,
    r"(control_model|controlnet_\w+|(.*\.)?input_hint_block)\..*": CONTROL,
    r"(conv_first|conv_last|conv_body|upconv\d)\..*|body\.\d+\.rdb\d\..*|model\.1\.sub\..*": UPSCALER,
    r"(image_proj|ip_adapter|adapter|body)\..*": ADAPTER,
    r"(.*\.)?(channelwise|kv_mapper)\..*": CASCADE,
    r"(.*\.)?(encoder_hid_proj|add_embedding\.(image|text_image)_\w+)\..*": CLASSES,
    r"(model\.diffusion_model\.|transformer\.)?(transformer_)?blocks\.\d+\.(\w*attn\w*|scale_shift_table)\b.*": TRANSFORMER,
    r"(encoder\.block\.\d+|model\.layers\.\d+|language_model|lm_head|h\.\d+)\..*": LANGUAGE,
    r"\d+\.\d+\.linear\..*": HYPERNETWORK,
    r"(encoder\.|decoder\.)?\d+\.(weight|bias|conv\.0\.weight)": TINY,
}
#: What a pipeline reads prompts with.
_TOWERS = ("text_encoder", "tokenizer")
_CLIP = {"CLIPTextModel", "CLIPTextModelWithProjection", "CLIPTokenizer", "CLIPTokenizerFast"}
_UNET = r"(model\.diffusion_model\.|unet\.)?(input_blocks|output_blocks|down_blocks|up_blocks)\..*"
_UNDER = r"first_stage_model\.|vae\."
_IMAGES = r"(.*\.)?(vision_model|visual)\..*"
_VAE = rf"({_UNDER})?(encoder|decoder)\.(conv_in|mid|mid_block|down|up|down_blocks|up_blocks)\..*"
_TEXT = r"(cond_stage_model|conditioner|text_encoder(_2)?|text_encoders)\..*|(.*\.)?(text_model|transformer\.resblocks)\..*"
_TEXT += r"|embeddings\.token_embedding\..*|token_embedding\..*"
#: What wrappers of a training put into every name.
_WRAPPER = re.compile(r"^(state_dict|module|model\.module)\.(model|unet|module|(first|cond)_stage_model)\.|\b_orig_mod\.")


def of_file(shapes: Shapes, words: Mapping[str, str], known: Collection[Outline] = ()) -> Kind | None:
    """The kind of a file that is no whole text-to-image model, and whose UNet is none `known`; None where nobody knows."""
    if any(_WRAPPER.search(name) for name in shapes):
        return WRAPPED
    found = outline(shapes)
    if found is None:
        suffix = words.get("modelspec.architecture", "").partition("/")[2]
        told = {"lora": LORA, "textual-inversion": EMBEDDING}.get(suffix)
        return told or _marked(shapes) or _alone(shapes)
    # Beside a UNet's own weights a ControlNet's may lie, which are left out by name; these change what the UNet is.
    marked, changed = _marked(name for name in shapes if not name.startswith("control_model.")), {PACKED, VIDEO, AUDIO, CONTROL}
    return (marked if marked in changed | {CLASSES, CASCADE} else None) or of_outline(found, known) or _alone(shapes)


def of_outline(found: Outline, known: Collection[Outline] = ()) -> Kind | None:
    """The kind that a UNet's outline tells; None for text-to-image, and for those that are known to build."""
    if found.channels not in {4, found.out}:
        return None if found in known else _CHANNELS.get(found.channels, OTHER_INPUTS)
    if found.added == 2560 or (found.added and found.context == (1280,)):
        return REFINER
    return CLASSES if found.added and found.added != 2816 and found.context == (1024,) else None


def of_index(index: Mapping[str, Any]) -> Kind | None:
    """What a pipeline is by its model_index.json: one of three stages, or SD's or SDXL's that lacks a network; None: others."""
    if {"decoder_scheduler", "super_res_scheduler"} <= index.keys():
        return KARLO
    if not re.fullmatch(r"StableDiffusion(XL)?(?!3)[A-Za-z0-9]*Pipeline", str(index.get("_class_name"))):
        return None
    has = {name for name, value in index.items() if isinstance(value, list | tuple) and value and value[-1] is not None}
    if "text_encoder" not in has and "text_encoder_2" in has and index.get("requires_aesthetics_score"):
        return None if {"unet", "vae", "tokenizer_2"} <= has and "Img2Img" in str(index["_class_name"]) else REFINER
    second = ("text_encoder_2", "tokenizer_2") if "XL" in str(index["_class_name"]) else ()
    texts = ("image_encoder", "feature_extractor") if "ImageVariation" in str(index["_class_name"]) else _TOWERS
    lacks = [name for name in ("unet", "vae", *texts, *second) if name not in has]
    way = "Copy its folder from the model that this one was made from, and name it in model_index.json as that one does."
    return Kind(f"a pipeline without its {' and its '.join(lacks)}", way) if lacks else None


def of_configs(configs: Configs) -> tuple[Kind, str] | None:
    """The kind of a diffusers model by its configs, and what tells; None for text-to-image."""
    unet, vae = configs["unet"], configs["vae"]
    channels, out = (int(unet.get(key, 4)) for key in ("in_channels", "out_channels"))
    latent = int(vae.get("latent_channels", 4))
    if not channels == out == latent:
        kind = _CHANNELS.get(channels, OTHER_INPUTS)
        return kind, f"the UNet takes {channels} channels and gives {out}, the VAE has {latent}"
    pictures = [int(vae.get(key, 3)) for key in ("in_channels", "out_channels")]
    if pictures != [3, 3]:
        return (AUDIO if pictures == [1, 1] else LDM3D), f"the VAE takes {pictures[0]} channels and gives {pictures[1]}"
    for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
        if unet.get(name) is not None:
            return CLASSES, f"unet.{name} is {unet[name]!r}"
    index = configs["model_index"]
    for name in (each for each in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2") if each in configs):
        if (found := str(index[name][1])) not in _CLIP:
            return TEXT, f"its {name} is a {found}"
    return None


def _marked(names: Iterable[str]) -> Kind | None:
    listed = list(names)
    return next((kind for mark, kind in _MARKS.items() if any(re.fullmatch(mark, name) for name in listed)), None)


def _alone(shapes: Shapes) -> Kind | None:
    has = [any(re.fullmatch(pattern, name) for name in shapes) for pattern in (_UNET, _VAE, _TEXT)]
    if not any(has):
        return IMAGE_TOWER if any(re.fullmatch(_IMAGES, name) for name in shapes) else None
    encodes, decodes = (any(re.fullmatch(rf"({_UNDER})?{half}coder\..*", name) for name in shapes) for half in ("en", "de"))
    if has[0] and has[2] and has[1] and not (encodes and decodes):
        return HALF_VAE
    return {
        (True, False, False): UNET,
        (False, True, False): VAE if encodes else DECODER,
        (False, True, True): NO_UNET,
        (False, False, True): TOWER,
        (True, False, True): NO_VAE,
        (True, True, False): NO_TEXT,
    }.get((has[0], has[1], has[2]))
