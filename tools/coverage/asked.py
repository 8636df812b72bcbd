"""What trials ask of pipelines, and of which size, where that is not what they ask of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Arguments by which diffusers' pipelines draw what they are asked for, and no more.
PLAIN = {
    "use_resolution_binning": False,
    "clean_caption": False,
    "skip_text_cleaning": True,
    "strength": 1.0,
    "_auto_resize": False,
    "use_pe": False,
    "enable_prompt_rewrite": False,
}
#: Arguments of the call without which some pipelines do nothing.
CALLS: Mapping[str, Mapping[str, Any]] = {
    "stable-diffusion-xl-controlnet-union": {"control_mode": [1]},
    # Of which a micro model's tokenizer, which spells, reads more.
    "dreamlite": {"max_sequence_length": 260},
    "dreamlite-mobile": {"max_sequence_length": 260},
    "kandinsky": {"prior_num_inference_steps": 3},
    "kandinsky22": {"prior_num_inference_steps": 3},
    "cascade": {"prior_num_inference_steps": 3},
    # Its schedule is of 48 steps; a scale, or a schedule of those that are asked for, takes its place.
    "ideogram4": {"guidance_schedule": None, "max_sequence_length": 96},
    "wuerstchen": {"prior_num_inference_steps": 3},
    "stable-unclip": {"prior_num_inference_steps": 3, "noise_level": 100},
}
#: How many pictures an argument of the call is a list of.
PICTURES: Mapping[str, Mapping[str, int]] = {"qwenimage-edit-plus-two": {"image": 2}}
#: What a micro model has in another way than the models of that name.
WITH = {
    "if": "with a scheduler of a fixed variance and no thresholding",
    "lumina": "with texts padded on the right",
    "hunyuan-pag": "never without guidance, where diffusers' own code fails",
}
#: Height and widths in pixels, where a micro model's network takes no smaller ones.
SIDES = {
    "kandinsky3": (64, 128),
    "cascade": (128, 256),
    "wuerstchen": (128, 256),
    "pixart-sigma": (64, 128),
    "lumina": (32, 64),
    "lumina2": (64, 128),
    "flux2-klein-pictured": (64, 96),
    "flux2-pictured": (64, 96),
    "qwenimage21": (32, 64),
    "qwenimage-edit-pictured": (64, 96),
    "qwenimage-edit-plus-pictured": (64, 96),
    "qwenimage-edit-plus-two": (64, 96),
    "sana": (32, 64),
    "sana-pag": (32, 64),
    "sana-sprint": (32, 64),
    "sana-controlnet": (32, 64),
    "hidream-image": (128, 192),
    "kandinsky5": (1024, 1408),
    "latent-diffusion": (64, 128),
    "cosmos2": (64, 128),
    "bria-fibo": (64, 96),
    "joyimage-edit": (960, 1024),
    "joyimage-edit-pictured": (960, 1024),
    "joyimage-edit-plus": (960, 1024),
}
#: And the height, where it is another than the smaller width.
HEIGHTS = {"joyimage-edit": 1024, "joyimage-edit-pictured": 1024, "joyimage-edit-plus": 1024}
