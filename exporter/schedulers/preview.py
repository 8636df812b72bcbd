"""Which clean latent a step was towards: what the scheduler says itself, or else what its configuration means."""

from __future__ import annotations

import math
from typing import Any

import torch

#: Where a step's result carries its clean latent.
_RESULTS = ("pred_original_sample", "denoised")
#: Algorithms of the DPM-Solver family whose converted model output is the clean latent; of the others it is the noise.
_DATA = {"dpmsolver++", "sde-dpmsolver++"}


class Preview:
    """Looks over the shoulder of one scheduler, fresh, while it is used up."""

    def __init__(self, scheduler: Any) -> None:  # noqa: ANN401 - diffusers' schedulers share no protocol
        self._scheduler, self._converted = scheduler, None
        config = scheduler.config
        if hasattr(scheduler, "convert_model_output") and (config.get("predict_x0") or config.get("algorithm_type") in _DATA):
            convert = scheduler.convert_model_output

            def converting(*args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401 - diffusers' own signature
                self._converted = convert(*args, **kwargs)
                return self._converted

            scheduler.convert_model_output = converting

    def __call__(self, result: Any, seen: torch.Tensor, output: torch.Tensor, time: torch.Tensor) -> torch.Tensor | None:  # noqa: ANN401
        """The clean latent of the step that was just made, or None.

        Args:
            result: what `scheduler.step` returned.
            seen: what the model saw.
            output: what it answered.
            time: when.

        """
        for name in _RESULTS:
            if getattr(result, name, None) is not None:
                return getattr(result, name)
        return self._meant(seen, output, time) if self._converted is None else self._converted

    def _meant(self, seen: torch.Tensor, output: torch.Tensor, time: torch.Tensor) -> torch.Tensor | None:
        """From the prediction type and the noise level: the model sees alpha * clean + sigma * noise."""
        scheduler, config = self._scheduler, self._scheduler.config
        if hasattr(scheduler, "sigmas") and hasattr(scheduler, "step_index"):
            level = float(scheduler.sigmas[scheduler.step_index - 1])  # the index is already that of the next step
        elif hasattr(scheduler, "alphas_cumprod"):
            kept = float(scheduler.alphas_cumprod[int(time)])
            # Betas that are none keep less than nothing: then the steps give NaN, which the table's reader tells.
            level = math.sqrt((1 - kept) / kept) if 0 < kept <= 1 else math.inf
        else:
            return None
        if type(scheduler).__name__.startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction":
            return seen - level * output
        alpha = 1 / math.sqrt(level * level + 1)
        sigma = math.sqrt(1 - alpha * alpha)
        match config.get("prediction_type"):
            case "epsilon":
                return (seen - sigma * output) / alpha if alpha else None
            case "v_prediction":
                return alpha * seen - sigma * output
            case "sample":
                return output
        return None
