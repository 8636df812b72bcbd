"""What a bundle can be asked for, as clients read it."""

from __future__ import annotations

import functools
import json
from typing import Any

from engines import plugins
from engines.serve.options import ServeOptions
from engines.serve.served import ServedBundle

#: Schedulers of diffusers by the names that A1111 gives them, with those that its clients send in lower case.
_A1111 = {
    "DDIMScheduler": "DDIM",
    "DEISMultistepScheduler": "DEIS",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSinglestepScheduler": "DPM++ 2S",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}


@functools.lru_cache(maxsize=64)
def scheduler(served: ServedBundle) -> str:
    """The scheduler of diffusers that the bundle's samplers were compiled from; empty where they do not say."""
    entry = served.bundle.manifest.samplers[0]
    told: Any = json.loads(served.bundle.path(entry.file).read_bytes())
    return str(told.get("provenance", {}).get("scheduler", ""))


@functools.lru_cache(maxsize=64)
def samplers(served: ServedBundle) -> dict[str, list[str]]:
    """Samplers by name with other names of theirs: the compiled one, then those that solve the bundle's noise process."""
    name = scheduler(served) or "compiled"
    found = {name: [_A1111[name]] if name in _A1111 else []}
    if served.bundle.manifest.process:
        kinds = {entry.kind for entry in served.bundle.manifest.samplers}
        found |= {other: [] for other in plugins.names("samplers") if other not in kinds}
    return found


def described(served: ServedBundle, options: ServeOptions) -> dict[str, Any]:
    """Sizes, steps, guidance, inputs and limits."""
    about = served.bundle.manifest
    (low_height, high_height, step_height), (low_width, high_width, step_width) = served.checker.sizes
    return {
        "digest": about.model,
        "defaults": {**about.defaults.model_dump(), "guidance_scale": about.guidance.scale},
        "height": {"min": low_height, "max": high_height, "step": step_height},
        "width": {"min": low_width, "max": high_width, "step": step_width},
        "steps": sorted({entry.steps for entry in about.samplers}),
        "samplers": list(samplers(served)),
        "guidance": [scale.model_dump() for scale in about.guidance.scales],
        "negative_prompt": about.guidance.mode == "classifier_free",
        "prompts": len(about.tokenizers),
        "image": bool(about.with_role("encoder")) and any(entry.image for entry in about.samplers),
        "inputs": {
            name: entry.model_dump(mode="json", exclude={"shape", "preprocessing", "views"})
            for name, entry in about.inputs.items()
            if entry.kind != "noise"  # which the seed draws
        },
        "loras": list(options.loras) if any(part.lora for part in about.parts.values()) else [],
        "fused": bool(about.with_role("pipeline")),
        "batching": "continuous" if served.continuous else "fixed",
        "batch": served.batch,
        "limits": {name: getattr(options, name) for name in ("max_images", "max_pixels", "max_prompt", "max_steps")},
    }
