"""A pipeline's networks under the names that optimum gave them, guidance and scaling outside, and nothing fused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import onnx_ir as ir
from torch import Tensor, nn

from engines.signature import Dim, Port, Range, Signature
from exporter.onnx.export import ExportedModel, export
from exporter.part import Part

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from engines.bundle import Role
    from engines.manifest import PartEntry

#: Items of a call, with guidance two a picture; from 64 on diffusers' upsampling goes another way, and a graph has one.
_BATCH = Range(min=1, typical=2, max=63)
#: A port's name has no dots; these tools' have.
_DOTTED = re.compile(r"^(hidden_states)_(\d+)$")


class _Text(nn.Module):
    """A CLIP text tower: ids (B, L) → what SD reads first, pooled state, and the states of every layer."""

    def __init__(self, tower: nn.Module, *, projected: bool) -> None:
        super().__init__()
        self.tower, self.projected = tower, projected

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Encode."""
        found = self.tower(input_ids, output_hidden_states=True)
        first = (found.text_embeds, found.last_hidden_state) if self.projected else (found.last_hidden_state, found.pooler_output)
        return (*first, *found.hidden_states)


class _Unet(nn.Module):
    """diffusers' UNet with what it takes beside its states as inputs of their own, in the order of `names`."""

    def __init__(self, unet: UNet2DConditionModel, names: Sequence[str]) -> None:
        super().__init__()
        self.unet, self.names = unet, tuple(names)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        first: Tensor | None = None,
        second: Tensor | None = None,
        third: Tensor | None = None,
    ) -> Tensor:
        """Predict; what the names call for comes in their order, since torch traces no argument of any number."""
        given: dict[str, Any] = dict(zip(self.names, (first, second, third), strict=False))
        condition = given.pop("timestep_cond", None)
        added = given or None
        return self.unet(
            sample, timestep, encoder_hidden_states, timestep_cond=condition, added_cond_kwargs=added, return_dict=False
        )[0]


class _Decoder(nn.Module):
    """A VAE's decoder: latents without their scaling → images (B, 3, H, W) in [-1, 1]."""

    def __init__(self, vae: Any) -> None:  # noqa: ANN401 - any autoencoder of diffusers
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Decode."""
        return self.vae.decode(latent_sample, return_dict=False)[0]


class _Encoder(nn.Module):
    """A KL-VAE's encoder: images (B, 3, H, W) in [-1, 1] → mean and log variance of the latents, without scaling."""

    def __init__(self, vae: Any) -> None:  # noqa: ANN401 - an AutoencoderKL
        super().__init__()
        self.vae = vae

    def forward(self, sample: Tensor) -> Tensor:
        """Encode."""
        return self.vae.encode(sample, return_dict=False)[0].parameters


def parts(pipeline: Any, entries: Mapping[str, PartEntry]) -> Iterator[Part]:  # noqa: ANN401 - diffusers'
    """The networks of a diffusers pipeline as parts of these tools' contracts.

    Args:
        pipeline: fp32.
        entries: the bundle's own parts, whose sizes these have.

    """
    denoiser = next(entry for entry in entries.values() if entry.role == "denoiser")
    sides = {name: allowed for name, allowed in denoiser.signature.dims.items() if name != "batch"}
    latent = next(port.shape[1:] for port in denoiser.signature.inputs if port.name == "latent")
    image = next(port.shape[1:3] for entry in entries.values() for port in entry.signature.outputs if port.name == "image")
    for name in (name for name in ("text_encoder", "text_encoder_2") if getattr(pipeline, name, None) is not None):
        yield _text(name, getattr(pipeline, name))
    yield _unet(pipeline, latent, sides)
    latents, pixels = _port("latent_sample", "batch", *latent), _port("sample", "batch", 3, *image)
    yield _made("vae_decoder", "decoder", _Decoder(pipeline.vae), (latents,), (pixels,), sides)
    if "vae_encoder" in entries and hasattr(pipeline.vae, "quant_conv"):
        parameters = _port("latent_parameters", "batch", 2 * cast("int", latent[0]), *latent[1:])
        yield _made("vae_encoder", "encoder", _Encoder(pipeline.vae), (pixels,), (parameters,), sides)


def graph(part: Part, opset: int) -> ExportedModel:
    """Export a part for any library, under the tools' names."""
    exported = export(part, opset)
    for value in exported.model.graph.outputs:
        value.name = dotted(str(value.name))
    return exported


def whole_times(model: ir.Model) -> None:
    """Have a denoiser's graph take its time as OpenVINO GenAI gives it: one whole number, int64 (1,)."""
    time = next(value for value in model.graph.inputs if value.name == "timestep")
    given = ir.Value(name="timestep", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    cast_ = ir.node("Cast", [given], {"to": ir.DataType.FLOAT.value})
    scalar = ir.node("Squeeze", [cast_.outputs[0]])
    time.replace_all_uses_with(scalar.outputs[0])
    model.graph.inputs[model.graph.inputs.index(time)] = given
    model.graph.insert_before(model.graph[0], [cast_, scalar])


def dotted(name: str) -> str:
    """The name that these tools have for an output: hidden_states.3 of hidden_states_3."""
    return _DOTTED.sub(r"\1.\2", name)


def _text(name: str, tower: Any) -> Part:  # noqa: ANN401 - transformers'
    config = tower.config
    projected = type(tower).__name__.endswith("WithProjection")
    length, width = int(config.max_position_embeddings), int(config.hidden_size)
    pooled = _port("text_embeds", "batch", int(config.projection_dim)) if projected else _port("pooler_output", "batch", width)
    states = _port("last_hidden_state", "batch", length, width)
    layers = [_port(f"hidden_states_{index}", "batch", length, width) for index in range(config.num_hidden_layers + 1)]
    ids = Port(name="input_ids", dtype="int64", shape=("batch", length))
    first = (pooled, states) if projected else (states, pooled)
    return _made(name, "text", _Text(tower, projected=projected), (ids,), (*first, *layers), {})


def _unet(pipeline: Any, latent: tuple[Dim, ...], sides: Mapping[str, Range]) -> Part:  # noqa: ANN401 - diffusers'
    unet, towers = pipeline.unet, [pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)]
    length = int(pipeline.text_encoder.config.max_position_embeddings)
    width = sum(int(tower.config.hidden_size) for tower in towers if tower is not None)
    others: dict[str, Port] = {}
    if unet.config.time_cond_proj_dim is not None:
        others["timestep_cond"] = _port("timestep_cond", "batch", int(unet.config.time_cond_proj_dim))
    if unet.config.addition_embed_type == "text_time":
        others["text_embeds"] = _port("text_embeds", "batch", int(pipeline.text_encoder_2.config.projection_dim))
        others["time_ids"] = _port("time_ids", "batch", 6)
    sample = _port("sample", "batch", *latent)
    states = _port("encoder_hidden_states", "batch", length, width)
    inputs = (sample, _port("timestep"), states, *others.values())
    return _made("unet", "denoiser", _Unet(unet, list(others)), inputs, (_port("out_sample", "batch", *latent),), sides)


def _port(name: str, *shape: Dim) -> Port:
    return Port(name=name, shape=shape)


def _made(
    name: str, role: Role, module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], sides: Mapping[str, Range]
) -> Part:
    return Part(name, role, module.eval(), Signature(inputs=inputs, outputs=outputs, dims={"batch": _BATCH, **sides}))
