"""What a frozen classifier sees in the pictures that two latents become (classifier-based feature distillation, 2211.12039)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

from engines.errors import UnsupportedError
from exporter.models.classifier import CLASSIFIER, PREPROCESSOR
from exporter.training.memory import own

if TYPE_CHECKING:
    from exporter.models.checkpoint import Checkpoint
    from exporter.part import Part


class ClassifierFeatureLoss:
    """Divergence of what a classifier sees in the student's picture from what it sees in the teacher's, sharpened.

    The features are what the classifier's last linear layer takes, (N, width), each picture's a distribution by softmax.

    Args:
        checkpoint: the classifier, as `exporter.models.classifier.find` returns it.
        decoder: the source's, which makes the pictures.
        temperature: by which the teacher's features are divided.

    Attributes:
        frozen: parameters of decoder and classifier.

    Raises:
        UnsupportedError: the classifier lacks weights, ends in no linear layer, or does not say how it wants its pictures.

    """

    def __init__(self, checkpoint: Checkpoint, decoder: Part, temperature: float) -> None:
        self._network = _read(checkpoint.folders[CLASSIFIER])
        self._decoder, self._temperature = decoder.module, temperature
        self._size, (self._mean, self._deviation) = _wanted(checkpoint.configs[PREPROCESSOR])
        linear = [layer for layer in self._network.modules() if isinstance(layer, nn.Linear)]
        if not linear or linear[-1].out_features != getattr(self._network.config, "num_labels", None):
            raise UnsupportedError(
                f"classifier: {type(self._network).__name__} does not end in a linear layer with a value for each label, whose "
                "input its features are.\n  Take another, such as microsoft/resnet-18."
            )
        self._features = torch.empty(0)
        linear[-1].register_forward_pre_hook(self._keep)
        self.frozen = sum(value.numel() for each in (self._network, self._decoder) for value in each.parameters())

    def settle(self, device: torch.device) -> None:
        """Bring decoder and classifier there, in float32: in half precision many decoders overflow."""
        for module in (self._network, self._decoder):
            own(module).to(device).eval()
        # Its wrapper cuts a picture's values in use, and leaves them in training, so that every pixel teaches.
        self._decoder.training = True
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)

    def __call__(self, clean: Tensor, wanted: Tensor) -> Tensor:
        """The divergence, a scalar, of the student's clean latents (N, C, h, w) from those of the teacher."""
        with torch.no_grad():
            taught = F.softmax(self.features(wanted) / self._temperature, dim=-1)
        return F.kl_div(F.log_softmax(self.features(clean), dim=-1), taught, reduction="batchmean")

    def features(self, latent: Tensor) -> Tensor:
        """What the classifier sees in pictures, (N, width)."""
        pictures = self._decoder(latent).permute(0, 3, 1, 2)
        pictures = F.interpolate(pictures, self._size, mode="bilinear", antialias=True)
        self._network((pictures - self._mean) / self._deviation)
        return self._features.flatten(1)

    def _keep(self, _layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._features = given[0]


def _read(folder: Path) -> nn.Module:
    """The classifier in float32, by transformers itself, which knows how files of its earlier versions name their weights."""
    network, found = AutoModelForImageClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if lacking := sorted(found["missing_keys"]):
        raise UnsupportedError(
            f"classifier: {folder} lacks {len(lacking)} weights of its network, {lacking[0]} among them.\n"
            "  Take one that was trained to classify, and not only what stands before its head."
        )
    return network


def _wanted(told: Mapping[str, Any]) -> tuple[tuple[int, int], Tensor]:
    """Height and width of a picture, and mean and deviation (2, 1, 3, 1, 1), from a preprocessor_config.json.

    Where it enlarges a picture and cuts its middle out, the size is what is left, and nothing is cut.
    """
    size = told.get("crop_size") if told.get("do_center_crop") else told.get("size")
    size = {"shortest_edge": size} if isinstance(size, int) else size or {}
    height, width = (size.get(side) or size.get("shortest_edge") for side in ("height", "width"))
    normal = [told.get("image_mean"), told.get("image_std")] if told.get("do_normalize", True) else [[0.0] * 3, [1.0] * 3]
    if not (height and width and all(normal)):
        raise UnsupportedError(
            "classifier: its preprocessor_config.json lacks size, image_mean or image_std.\n"
            "  Save it with the image processor that it was trained with."
        )
    return (int(height), int(width)), torch.tensor(normal).reshape(2, 1, 3, 1, 1)
