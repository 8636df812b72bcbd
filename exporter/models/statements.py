"""What a single file states about its model, in marker keys and in metadata, as fields of diffusers' configs.

Marker keys as ComfyUI reads them (comfy/supported_models.py): `v_pred`, `ztsnr` (NoobAI), `edm_mean` and `edm_std` (Playground
2.5), `edm_vpred.*` (CosXL). Metadata: Stability AI's ModelSpec 1.0 (`modelspec.*`), and what kohya's trainer writes (`ss_*`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.models import safetensors_header

Configs = Mapping[str, Mapping[str, Any]]
#: Scheduler of Playground 2.5, whose first and second sigma_data-scaled moments lie in the file; as diffusers' loader makes it.
_EDM = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0, "num_train_timesteps": 1000}
_PLAYGROUND = {"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "epsilon", **_EDM}
#: CosXL's: v-prediction over the same levels of noise, with unit variance of the data.
_COSXL = {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction", **_EDM}
_COSXL |= {"sigma_data": 1.0, "sigma_max": 120.0, "sigma_schedule": "exponential"}
#: Words for a prediction → diffusers'. "velocity" is left out: of flow matching it is another thing.
_PREDICTIONS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
_PREDICTIONS |= {"v-prediction": "v_prediction", "v_pred": "v_prediction", "vpred": "v_prediction", "sample": "sample"}
#: Marker keys, which are no weights; some files have them where the UNet's weights are.
MARKERS = re.compile(r"(?:model\.diffusion_model\.|unet\.)?(v_pred|ztsnr|edm_mean|edm_std|edm_vpred\.sigma_(?:min|max))")
#: What ModelSpec calls an architecture → whether it has two text encoders.
_ARCHITECTURES = {"stable-diffusion-v1": False, "stable-diffusion-v2": False, "stable-diffusion-xl": True}


#: Metadata of other names that sounds as if it were about the noise or the prediction, and values that say nothing new.
_UNREAD = re.compile(
    r"(?!modelspec\.prediction_type|ss_v_parameterization|ss_zero_terminal_snr)(.*[._])?"
    r"(prediction_type|predict(s|_type)?|parameterization|v_?pred(iction)?|zt?snr|zero_(terminal_)?snr|rescale_betas_zero_snr"
    r"|flow_matching|noise_schedule|beta_schedule|timestep_spacing)"
)
_USUAL = {"", "none", "null", "false", "0", "epsilon", "eps", "ddpm", "scaled_linear"}


@dataclass(frozen=True)
class Statement:
    """One field of one component's config, as the file wants it; of `None` the file's own word is one that nobody knows.

    Attributes:
        component: `scheduler` or `vae`.
        field: of its config; `_class_name` is the scheduler's class.
        value: what the config shall say.
        by: where the file says so, in words.

    """

    component: str
    field: str
    value: Any
    by: str


def stated(file: Path) -> tuple[Statement, ...]:
    """Everything that a single file states. Marker keys come behind metadata, which merges copy from one of their parents.

    Raises:
        UnsupportedError: not a whole safetensors file.

    """
    found = safetensors_header.header(file)
    return (*_of_metadata(found.metadata), *_of_keys(file, found.shapes))


def _of_keys(file: Path, shapes: Mapping[str, Sequence[int]]) -> Iterator[Statement]:
    marks = {match[1]: name for name in shapes if (match := MARKERS.fullmatch(name))}
    if "v_pred" in marks:
        yield Statement("scheduler", "prediction_type", "v_prediction", "its key v_pred")
    if "ztsnr" in marks:
        yield Statement("scheduler", "rescale_betas_zero_snr", True, "its key ztsnr")  # noqa: FBT003 - a config's value
        yield Statement("scheduler", "timestep_spacing", "trailing", "its key ztsnr")
    moments = {key: _values(file, marks[key], 4, positive=key == "edm_std") for key in ("edm_mean", "edm_std") if key in marks}
    if moments:
        yield from (Statement("scheduler", field, value, "its keys edm_mean and edm_std") for field, value in _PLAYGROUND.items())
        for key in ("edm_mean", "edm_std"):
            yield Statement("vae", f"latents_{key.removeprefix('edm_')}", moments.get(key), f"its key {key}")
        yield Statement("vae", "scaling_factor", 0.5, "its keys edm_mean and edm_std")
    if edges := {key: name for key, name in marks.items() if key.startswith("edm_vpred.sigma_")}:
        bounds = {key: _values(file, name, 1, positive=True) for key, name in edges.items()}
        told = {key.removeprefix("edm_vpred."): value and value[0] for key, value in bounds.items()}
        config = {**_COSXL, **told}
        if None not in told.values() and not config["sigma_min"] < config["sigma_max"]:
            config |= dict.fromkeys(told)
        yield from (Statement("scheduler", field, value, f"its key {min(bounds)}") for field, value in config.items())


def _values(file: Path, key: str, count: int, *, positive: bool) -> list[float] | None:
    """A marker's numbers; None where they are not as many, or none that a config can hold."""
    values = safetensors_header.numbers(file, key)
    fit = all(math.isfinite(value) and (value > 0 or not positive) for value in values)
    return values if len(values) == count and fit else None


def _of_metadata(words: Mapping[str, str]) -> Iterator[Statement]:
    if word := words.get("modelspec.prediction_type"):
        yield Statement("scheduler", "prediction_type", _PREDICTIONS.get(word.lower()), f"modelspec.prediction_type {word!r}")
    elif words.get("ss_v_parameterization", "").lower() == "true":
        yield Statement("scheduler", "prediction_type", "v_prediction", "ss_v_parameterization")
    elif words.get("modelspec.architecture") == "stable-diffusion-v2-768-v":
        yield Statement("scheduler", "prediction_type", "v_prediction", "modelspec.architecture 'stable-diffusion-v2-768-v'")
    if words.get("ss_zero_terminal_snr", "").lower() == "true":
        yield Statement("scheduler", "rescale_betas_zero_snr", True, "ss_zero_terminal_snr")  # noqa: FBT003 - a config's value
        yield Statement("scheduler", "timestep_spacing", "trailing", "ss_zero_terminal_snr")


def told(found: Iterable[Statement]) -> str:
    """What a file says and where it does, for the bundle."""
    return "; ".join(f"{each.field} {each.value} ({each.by})" for each in found)


def applied(configs: Configs, found: Iterable[Statement]) -> Configs:
    """Configs as the file wants them; a scheduler of another class begins anew, its betas apart."""
    changed = {name: dict(config) for name, config in configs.items()}
    for each in found:
        if each.value is None:
            continue
        if each.field == "_class_name":
            changed["scheduler"] = {}
            changed["model_index"] |= {"scheduler": ["diffusers", each.value]}
        changed[each.component][each.field] = each.value
    return changed


def remarks(words: Mapping[str, str], where: str, configs: Configs, *, changes: bool = False) -> Iterator[str]:
    """What metadata says that no config can hold, and that whoever uses the model may want to know.

    Args:
        words: the metadata.
        where: the file, for the sentence.
        configs: of the model that the file is, or changes.
        changes: the file is a LoRA's, whose words are compared with the model.

    """
    layer = words.get("modelspec.encoder_layer") or words.get("ss_clip_skip")
    if layer not in {None, "", "None", "1"}:
        yield f"{where}: made with text layer {layer} from the end (clip skip); built with the one that the pipeline takes"
    if (span := words.get("modelspec.timestep_range")) and span.replace(" ", "") not in {"0,1000", "0,999"}:
        yield f"{where}: made for the timesteps {span} alone; it is built for all"
    if (process := words.get("modelspec.noise_process")) and process.lower() != "ddpm":
        yield f"{where}: its noise process is called {process!r}, which is not read"
    for each in _of_metadata(words) if changes else ():
        if each.field != "timestep_spacing" and each.value != (here := _config(configs, each.field)):
            yield f"{where}: trained on a model whose {each.field} is {each.value!r} ({each.by}), and this one's is {here!r}"
    if unread := sorted(key for key, word in words.items() if _UNREAD.fullmatch(key) and word.lower() not in _USUAL):
        listed = ", ".join(f"{key} {words[key]!r}" for key in unread)
        yield f"{where}: its metadata has {listed}, under a name that is not read; if it holds, write it into sampler.config"
    kind, _, part = words.get("modelspec.architecture", "").partition("/")
    # A refiner's own weights are refused before.
    two = next((two for start, two in _ARCHITECTURES.items() if kind.startswith(start) and "refiner" not in kind), None)
    if kind and two is not ("text_encoder_2" in configs):
        yield f"{where}: made for {kind}, as modelspec.architecture says, and this is another model"
    elif part and not changes:
        yield f"{where}: modelspec.architecture calls it {kind}/{part}; its weights are a whole text-to-image model's"


def _config(configs: Configs, field: str) -> Any:  # noqa: ANN401 - whatever a config holds
    return configs["scheduler"].get(field, {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}.get(field))
