"""One architecture family per file: which checkpoints it claims, and how its networks are wrapped under the uniform contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from engines import plugins
from engines.errors import UnsupportedError

if TYPE_CHECKING:
    from engines.bundle import Role, Tokenizer
    from engines.guidance import Guidance
    from engines.inputs import Input
    from engines.signature import Signature
    from exporter.load import Checkpoint
    from exporter.part import Part, Precision
    from exporter.recipe import Recipe


class Family(Protocol):
    """What the build asks of a family. Everything but `part` and `pipeline` reads configs only and imports no torch.

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

    #: Component name → role, in the order in which the pipeline runs them.
    roles: Mapping[str, Role]

    #: Text part → its tokenizer.
    towers: Mapping[str, str]

    #: What users feed beside the prompt, by the name of the ports that take it.
    inputs: Mapping[str, Input]

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

    def tokenizers(self) -> Mapping[str, tuple[Tokenizer, str]]:
        """Per tokenizer: manifest entry, and the text of its `tokenizers` JSON file."""
        ...

    def pipeline(self) -> Any:  # noqa: ANN401 - a diffusers pipeline, which this module must not import
        """The source model as diffusers runs it, fp32, for recording."""
        ...


def claim(checkpoint: Checkpoint, recipe: Recipe) -> Family:
    """Make the family that a model belongs to, of the recipe.

    Raises:
        RecipeError: the recipe does not fit the model.
        UnsupportedError: no family claims it.

    """
    names = plugins.names("families")
    for name in names:
        family = plugins.load("families", name)
        if family.claims(checkpoint.configs):
            return family(checkpoint, recipe)
    index = checkpoint.configs.get("model_index", {})
    raise UnsupportedError(
        f"no family claims {recipe.model.source!r} ({index.get('_class_name', 'no model_index.json')}). "
        f"There are: {', '.join(names)}; see `t2iexport list families`."
    )
