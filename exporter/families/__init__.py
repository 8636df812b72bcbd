"""One architecture family per file: which checkpoints it claims, and how its networks are wrapped under the uniform contract."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from engines import plugins
from engines.errors import RecipeError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from engines.bundle import Role, Tokenizer
    from engines.guidance import Guidance
    from engines.inputs import Input
    from engines.manifest import PartialStep, StartsFrom
    from engines.signature import Signature
    from exporter.models.checkpoint import Checkpoint
    from exporter.part import Part, Precision
    from exporter.recipe.schema import Recipe


#: Told of an answer of a denoiser's outermost layers: their depth, the calls (from 0) that left what they were given and that
#: they answered, and how far they are off from the whole one's answer, float32 (branches*B, numbers), the negative branch first.
Saw = Callable[[int, int, int, "np.ndarray"], None]
#: In the name of a pipeline of diffusers: that it runs more than Stable Diffusion's or SDXL's own networks on text alone.
_CONDITIONED = ("PAG", "ControlNet", "Adapter", "Pix2Pix", "Upscale", "Depth2Img", "UnCLIP")
#: In the name of one: that it starts from a picture, so that its VAE's encoder is wanted too.
_EDITING = ("Img2Img", "Inpaint", "Depth2Img")


class Reference(Protocol):
    """The source model as diffusers runs it, fp32; everything that knows the names of its networks and its arguments.

    Attributes:
        pipeline: the diffusers pipeline.
        components: part → the module whose values are the part's.
        calls: part → whose method the pipeline calls for it, and its name.
        scales: of guidance, at every call of the denoiser in the last `call`; empty where they are all alike.
        pag_scales: of perturbed attention, as `scales`.
        features: deep features that these calls left or were given, (branches*B, …) as their port has them behind the branches,
            the branches in the order of the port; empty without step caching.

    """

    pipeline: Any
    scales: Sequence[float]
    pag_scales: Sequence[float]
    features: Sequence[Tensor]

    def reordered(self, draws: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The noises that a run drew in the order in which a bundle draws them, without those that change nothing."""
        ...

    def conditions(self, fed: Mapping[str, np.ndarray], noise: np.ndarray) -> dict[str, np.ndarray]:
        """What the source makes of what it is fed once, pictures, uint8 (B, height, width, channels), and numbers.

        float32 by port; and what goes into it.
        """
        ...

    @property
    def components(self) -> Mapping[str, nn.Module]: ...  # noqa: D102 - above
    @property
    def calls(self) -> Mapping[str, tuple[object, str]]: ...  # noqa: D102

    def unpacked(self, kept: Tensor, shape: Sequence[int]) -> Tensor:
        """The latent (B, C, H, W), of that shape, of what the pipeline hands to its scheduler."""
        ...

    def tokenize(
        self, prompts: Sequence[str], negative: str | None, fed: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Token ids as the source's own tokenizers make them, int64 (batch, branches, length), by input port."""
        ...

    def encode(
        self, prompts: Sequence[str], negative: str | None, fed: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Conditioning as the source makes it, float32 (batch, branches, …), by port.

        `fed` is what text parts take beside ids, by input: noise of a first stage, float32 (batch, draws, …), and pictures,
        uint8 (batch, height, width, channels).
        """
        ...

    def call(self, conditioning: Mapping[str, np.ndarray], guidance_scale: float | None, **options: Any) -> Any:  # noqa: ANN401 - diffusers'
        """Run the pipeline on conditioning that `encode` returned.

        `options["pipeline"]` names another one, and `options["cache"]` stands in for the recipe's step caching; None is without.
        """
        ...

    def reusing(self, depths: Sequence[int], reach: int, saw: Saw) -> AbstractContextManager[None]:
        """Within it, every call of the denoiser is answered by its outermost layers too, on what earlier calls left.

        Of these, the last `reach` are tried; `saw` is told of each answer.
        """
        ...

    def from_image(
        self, pixels: np.ndarray, anew: np.ndarray | None, strength: float | None, size: Mapping[str, int]
    ) -> tuple[Any, dict[str, Any]]:
        """The pipeline that plays the same networks from an image (height, width, 3), and its own arguments."""
        ...

    def encode_image(self, image: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Latent, float32 (B, C, h, w), of images (B, height, width, 3) in [0, 1], with the encoder's noise given."""
        ...

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Images, float32 (B, height, width, 3) in [0, 1], of a latent."""
        ...


@dataclass(frozen=True)
class Driving:
    """How the pipeline of a family drives its scheduler.

    Attributes:
        pipeline: its name in diffusers.
        begins: whether it tells the scheduler at which step it begins, which diffusers calls the begin index. A scheduler that
            is not told looks its first time up, and takes the second of two steps at one time.
        needs: what it reads off the scheduler, beside what every scheduler has.
        step: the arguments of `scheduler.step` that it gives to a scheduler which has them.
        levels: whether a step is computed from the noise's level, the scheduler's sigma, and from no time. The network's graph is
            then told that in the time's place, and is shown the latent as the scheduler has it, which it scales itself.
        clean: whether it keeps what a mask keeps without noise at every step, and begins at full strength as at others.
        unit: by what it multiplies its first noise by itself, beside what the scheduler says.

    """

    pipeline: str = "a pipeline of diffusers"
    begins: bool = True
    needs: tuple[str, ...] = ()
    step: Mapping[str, float] = field(default_factory=dict)
    levels: bool = False
    clean: bool = False
    unit: float = 1.0

    def shown(self, scheduler: Any, latent: Any, scaled: Any, time: Any, step: int) -> tuple[Any, float]:  # noqa: ANN401 - tensors
        """What the network's graph is shown of a latent at a step, counted from 0, and what it is told of the time."""
        return (latent, float(scheduler.sigmas[step])) if self.levels else (scaled, float(time))


class Family(Protocol):
    """What the build asks of a family.

    Of a `general` one, which claims what no other claims, all may import torch; of the others everything but `part` and
    `reference` reads configs only.

    Port names are the wiring. Text parts: `<tokenizer>_ids` int64 (batch, branches, length) → conditioning, float32
    (batch, branches, …). Denoiser: `latent` (batch, channels, latent_height, latent_width), `timestep` (batch,),
    `guidance_scale` (batch,) unless guidance is `none`, conditioning by name → `model_output` of the latent's shape.
    Condition parts run once a picture: inputs that users feed, conditioning → conditioning. Decoder: `latent` → `image` (batch,
    f*latent_height, f*latent_width, 3) in [0, 1]. Encoder: `image`, `noise` → `latent`.
    """

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        """Raise RecipeError with every way in which the recipe does not fit the model."""
        ...

    @staticmethod
    def claims(configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a model with these component configs belongs to this family."""
        ...

    checkpoint: Checkpoint
    recipe: Recipe

    #: Component name → role, in the order in which the pipeline runs them.
    roles: Mapping[str, Role]

    #: Name of the part that encodes images; among the roles where the recipe asks for it.
    image_encoder: str

    @property
    def starts(self) -> Collection[str]:
        """What its pipelines in diffusers start from where images are encoded: an `image`, and it within a `mask`."""
        ...

    #: Whether it claims whatever is left; it is asked last.
    general: ClassVar[bool]

    #: Text part → its tokenizer, where captions can be encoded part by part.
    towers: Mapping[str, str]

    @property
    def tokenizer_names(self) -> Sequence[str]:
        """Every tokenizer."""
        ...

    @property
    def sized(self) -> bool:
        """Whether `times` are others for pictures of another size."""
        ...

    def digest(self, part: str) -> str:
        """SHA-256 over all that a part, or a tokenizer, is made of."""
        ...

    def times(self, steps: int, height: int, width: int) -> Mapping[str, Any]:
        """Sigmas, times and shift (`mu`) that its pipeline itself hands to the scheduler, for pictures of a size in pixels."""
        ...

    @property
    def driving(self) -> Driving:
        """How its pipeline drives the scheduler."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What of the model's components and configs is left out, a sentence each."""
        ...

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What users feed beside the prompt, by the name of the ports that take it."""
        ...

    @property
    def shared_inputs(self) -> Collection[str]:
        """Those of them of which one call of the source takes one, for all its pictures."""
        ...

    @property
    def noise_order(self) -> Sequence[int]:
        """Which of the noises that its pipeline draws a bundle takes first, in its order; empty: as they come."""
        ...

    @property
    def start_order(self) -> Mapping[StartsFrom, Sequence[int]]:
        """Of a seed's draws, which are taken, by what a pipeline of it starts from; only where not as they come."""
        ...

    @property
    def partial_step(self) -> PartialStep:
        """What becomes of the step in which a strength ends, where its pipeline starts from a picture."""
        ...

    @property
    def guidance(self) -> Guidance:
        """Mode, and every scale with the recipe's default."""
        ...

    def signature(self, name: str) -> Signature:
        """The contract of one part at the recipe's shapes."""
        ...

    def part(self, name: str, precision: Precision) -> Part:
        """Load one network at a precision and wrap it."""
        ...

    def tokenizer(self, name: str) -> Any:  # noqa: ANN401 - transformers'
        """One tokenizer as transformers has it."""
        ...

    def literal_ids(self, tower: str, texts: Sequence[str]) -> np.ndarray:
        """Token ids, int64 (texts, length), of texts in which nothing is a weight, such as captions."""
        ...

    def tokenizers(self) -> Mapping[str, tuple[Tokenizer, str]]:
        """Per tokenizer: manifest entry, and the text of its `tokenizers` JSON file."""
        ...

    @property
    def cache_depths(self) -> Sequence[int]:
        """How deep step caching can take the denoiser apart; none where it cannot."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        ...

    def latent_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of the denoiser's latent for images of height × width pixels."""
        ...

    def replacing(self, *, checkpoint: Checkpoint | None = None, recipe: Recipe | None = None) -> Self:
        """The same family of another checkpoint or recipe."""
        ...

    def reference(self) -> Reference:
        """The source model as diffusers runs it, fp32."""
        ...


def plain(configs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the model's pipeline does no more than text to image, from a picture or within a mask, with its own networks.

    Others perturb attention, take pictures as conditions or as prompts, or give their UNet more channels than the latent's, each
    as its own code says.
    """
    name, unet, vae = (configs.get(each, {}) for each in ("model_index", "unet", "vae"))
    kind = str(name.get("_class_name"))
    if any(word in kind for word in _CONDITIONED) or unet.get("encoder_hid_dim_type") == "ip_image_proj":
        return False
    return "Inpaint" not in kind or unet.get("in_channels", 4) == vae.get("latent_channels", 4)


def edits(configs: Mapping[str, Mapping[str, Any]], recipe: Recipe) -> bool:
    """Whether the model's pipeline starts from a picture, which the recipe leaves room for."""
    kind, sampler = str(configs.get("model_index", {}).get("_class_name")), recipe.sampler
    return any(word in kind for word in _EDITING) and recipe.pipeline == "stepped" and not sampler.guidance.rescale


def claim(checkpoint: Checkpoint, recipe: Recipe) -> Family:
    """Make the family that a model belongs to, of the recipe.

    Raises:
        RecipeError: the recipe does not fit the model.
        UnsupportedError: no family claims it.

    """
    names = plugins.names("families")
    families = [plugins.load("families", name) for name in names]
    for family in sorted(families, key=lambda each: each.general):
        if family.claims(checkpoint.configs):
            asked = {"call": recipe.model.call, "pictures": recipe.model.pictures}
            if any(asked.values()) and not family.general:
                told = "is for models whose pipeline of diffusers is followed; leave it out"
                raise RecipeError([f"model.{key}.{name}: {told}" for key, names in asked.items() for name in names])
            return family(checkpoint, recipe)
    index = checkpoint.configs.get("model_index", {})
    raise UnsupportedError(
        f"no family claims {recipe.model.source!r} ({index.get('_class_name', 'no model_index.json')}). "
        f"There are: {', '.join(names)}; see `t2iexport list families`."
    )
