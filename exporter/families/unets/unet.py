"""What Stable Diffusion and SDXL share: CLIP text towers, and a UNet in a VAE's latent space. Reads configs without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from engines.errors import RecipeError, UnsupportedError
from engines.guidance import BRANCHES, Guidance
from engines.inputs import Input
from engines.manifest import PartialStep, Role, StartsFrom, Tokenizer
from engines.plugins import did_you_mean
from engines.signature import Dim, Port, Range, Signature
from exporter.families import Driving, edits
from exporter.families.unets import depths, steering, step_problems, strengths
from exporter.families.unets.sizes import LatentSizes, tiled
from exporter.models import embeddings, kinds, leftovers
from exporter.models.checkpoint import network
from exporter.models.tokenizer_text import padded
from exporter.part import SHALLOW, Part
from exporter.part import Precision as Precision  # noqa: PLC0414 - the families' own argument type

if TYPE_CHECKING:
    import numpy as np
    import transformers
    from torch import nn

    from exporter.families.unets.reference import LatentDiffusionReference
    from exporter.models.checkpoint import Checkpoint
    from exporter.recipe.schema import Recipe


class LatentDiffusion:
    """A family of diffusers pipelines; subclasses say which text towers there are and how their outputs are used.

    Raises:
        RecipeError: every way in which the recipe does not fit the model.
        UnsupportedError: the model itself cannot be expressed.

    """

    #: Text tower → its tokenizer.
    towers: Mapping[str, str] = {}
    inputs: Mapping[str, Input] = {}
    shared_inputs: Collection[str] = ()
    image_encoder = "vae_encoder"
    general: ClassVar[bool] = False
    sized = False
    noise_order: Sequence[int] = ()
    start_order: Mapping[StartsFrom, Sequence[int]] = {}
    starts = ("image", "mask")
    #: Class name of the pipeline in diffusers.
    pipeline_class = ""
    #: Whether that pipeline tells its scheduler the begin index.
    begins = True
    #: Whether hidden states are taken before the last layer, without the final norm.
    penultimate = False
    #: Whether those that start from an image know guidance_rescale.
    rescales_from_images = True

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        self.checkpoint, self.recipe = checkpoint, recipe
        self.configs = checkpoint.configs
        roles: dict[str, Role] = {**dict.fromkeys(self.towers, "text"), "unet": "denoiser", "vae_decoder": "decoder"}
        if self.image_encoder in recipe.components or edits(self.configs, recipe):
            roles[self.image_encoder] = "encoder"
        if recipe.sampler.cache:
            roles[f"unet{SHALLOW}"] = "shallow"
        self.roles: Mapping[str, Role] = roles
        self._refuse_model()
        steps = step_problems.problems(recipe, self.configs["unet"], self._played, rescales_from_images=self.rescales_from_images)
        problems = [*self._component_problems(), *steps]
        # What is made of the sizes, tiles too, is made of sizes that fit.
        problems += list(self.sizes.problems()) or self._tile_problems()
        # The states before the first layer can be had too, but where the last layer is left out anyway.
        layers = min(int(self.configs[tower].get("num_hidden_layers", 12)) for tower in self.towers) - self.penultimate
        problems += self.recipe.prompts.problems(layers)
        if problems:
            raise RecipeError(problems)

    @property
    def notes(self) -> Sequence[str]:
        """What of the model's components and configs is left out, a sentence each."""
        used = {"unet", "vae", "scheduler", *self.towers, *self.towers.values()}
        networks = used - set(self.towers.values())
        found = leftovers.components(self.configs["model_index"], used, self.pipeline_class)
        return (*found, *leftovers.fields(self.configs, networks))

    @property
    def driving(self) -> Driving:
        """How the pipelines drive a scheduler: eta is 0 unless they are told otherwise, whatever the scheduler's default is."""
        return Driving(self._played, self.begins, ("init_noise_sigma", "scale_model_input"), {"eta": 0.0})

    @property
    def tokenizer_names(self) -> Sequence[str]:
        """Every tokenizer."""
        return tuple(self.towers.values())

    def digest(self, part: str) -> str:
        """SHA-256 over the weights and configs of a part, or over a tokenizer."""
        return self.checkpoint.digest(network(part))

    def times(self, steps: int, height: int, width: int) -> Mapping[str, Any]:  # noqa: ARG002 - of another family
        """Nothing: these pipelines leave the times to the scheduler."""
        return {}

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        vae = self.configs["vae"]
        if self._tiny:
            return int(vae.get("upsampling_scaling_factor", 2)) ** (len(vae.get("decoder_block_out_channels", [64] * 4)) - 1)
        return 2 ** (len(vae.get("block_out_channels", [64])) - 1)

    @property
    def cache_depths(self) -> Sequence[int]:
        """How deep step caching can take the UNet apart."""
        return depths.offered(self.configs["unet"])

    @cached_property
    def sizes(self) -> LatentSizes:
        """The recipe's sizes in cells of the latent."""
        return LatentSizes(self.configs["unet"], self.factor, self.recipe.shapes)

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return int(self.configs["unet"].get("in_channels", 4))

    @property
    def guidance(self) -> Guidance:
        """The recipe's."""
        return steering.guidance(self.recipe.sampler.guidance)

    @property
    def branches(self) -> int:
        """Prompts per picture: negative and positive, or one."""
        return self.guidance.branches

    def length(self, tower: str) -> int:
        """Token ids per prompt of one text tower, in all of its chunks."""
        return self.chunk(tower) * self.recipe.prompts.chunks

    def chunk(self, tower: str) -> int:
        """Token ids that one text tower encodes at once."""
        limits = ((self.towers[tower], "model_max_length"), (tower, "max_position_embeddings"))
        return min(int(self.configs[name].get(field, 77)) for name, field in limits)

    def width(self, tower: str) -> int:
        """Channels of one text tower's hidden states."""
        return int(self.configs[tower].get("hidden_size", 512))

    def signature(self, name: str) -> Signature:
        """Say what goes into one part and what comes out, at the recipe's shapes."""
        role, image, latent = self.roles[name], self._image(), self._latent()
        if role == "text":
            shape = ("batch", self.branches, self.length(name))
            inputs = [Port(name=f"{self.towers[name]}_ids", dtype="int64", shape=shape)]
            if self.recipe.prompts.weights:
                inputs.append(Port(name=f"{self.towers[name]}_weights", shape=shape))
            return self._signed(inputs, self.conditioning(name))
        if role in {"denoiser", "shallow"}:
            sampler, answer = self.recipe.sampler, Port(name="model_output", shape=latent.shape)
            inputs = [
                latent,
                Port(name="timestep", shape=("batch",)),
                *(steering.steered(port, self.guidance, sampler) for t in self.towers for port in self.conditioning(t)),
                *steering.scales(self.guidance),
            ]
            if (cache := sampler.cache) is None:
                return self._signed(inputs, [answer])
            deep = depths.deep_feature(self.configs["unet"], latent, self.guidance.rows)
            cut = depths.shallow_inputs(self.configs["unet"], inputs, cache, deep)
            return self._signed(cut, [answer]) if role == "shallow" else self._signed(inputs, [answer, deep])
        if role == "decoder":
            return self._tiled(self._signed([latent], [image]))
        noise = () if self._tiny else (Port(name="noise", shape=latent.shape),)
        return self._signed([image, *noise], [latent])

    def conditioning(self, tower: str) -> Sequence[Port]:
        """List the outputs of one text tower, which are inputs of the denoiser."""
        raise NotImplementedError

    def part(self, name: str, precision: Precision) -> Part:
        """Load one network at a precision and wrap it.

        Raises:
            UnsupportedError: the weights do not fit the config.

        """
        from exporter.families.unets import wrappers  # noqa: PLC0415 - torch

        role = self.roles[name]
        component = name.removesuffix(SHALLOW)
        network = self._network(component if component in self.configs else "vae", precision)
        if role == "text":
            module = self.text(name, network)
        elif role in {"denoiser", "shallow"}:
            module = self.denoiser(network)
            if self.sizes.crops:
                wrappers.stretch_to_skips(network)
            if role == "shallow":
                module = wrappers.ShallowDenoiser(module, [port.name for port in self.signature(name).inputs])
        elif role == "decoder":
            module = wrappers.Decoder(network)
        else:
            module = (wrappers.TinyEncoder if self._tiny else wrappers.Encoder)(network)
        return Part(name, role, module.eval(), self.signature(name), precision)

    def _network(self, name: str, precision: Precision) -> nn.Module:
        """Load one network; a text encoder with the words of the recipe's embeddings."""
        network = self.checkpoint.module(name, precision)
        words = self.checkpoint.words(name)
        return embeddings.taught(network, words, self.tokenizer(self.towers[name])) if words else network

    @staticmethod
    def claims(configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a model with these component configs belongs to this family."""
        raise NotImplementedError

    @property
    def partial_step(self) -> PartialStep:
        """As the pipelines count that start from a picture."""
        return strengths.partial_step(self.configs, self.recipe.sampler)

    def text(self, tower: str, network: nn.Module) -> nn.Module:
        """Wrap one text tower."""
        raise NotImplementedError

    def denoiser(self, network: nn.Module) -> nn.Module:
        """Wrap the UNet."""
        raise NotImplementedError

    def tokenizers(self) -> Mapping[str, tuple[Tokenizer, str]]:
        """Per tokenizer: manifest entry, and the text of its `tokenizers` JSON file, which says how it pads."""
        found: dict[str, tuple[Tokenizer, str]] = {}
        for tower, name in self.towers.items():
            prompts = self.recipe.prompts
            entry = Tokenizer(
                file=f"tokenizers/{name}.json",
                length=self.length(tower),
                feeds=f"{name}_ids",
                chunks=prompts.chunks,
                weights=f"{name}_weights" if prompts.weights else None,
                syntax=prompts.weights,
                downweighted=prompts.downweighted if prompts.weights == "compel" else 0,
            )
            found[name] = (entry, padded(self.tokenizer(name), self.chunk(tower)))
        return found

    def tokenizer(self, name: str) -> transformers.CLIPTokenizer:
        """One tokenizer as transformers has it; for a model without vocabulary, one that spells every byte.

        Raises:
            UnsupportedError: the folder is incomplete, or the vocabulary is larger than the text tower's.

        """
        from exporter.families.unets import tokens  # noqa: PLC0415 - a plan needs no vocabulary

        tower = next(tower for tower, own in self.towers.items() if own == name)
        folder, size = self.checkpoint.folders.get(name), int(self.configs[tower].get("vocab_size", 49408))
        if folder is None:
            return tokens.spelling(self.configs[name], size, self.chunk(tower))
        words = [token for each in self.checkpoint.words(tower) for token in each.tokens]
        return tokens.with_words(tokens.read(folder, name, tower, size), words)

    def literal_ids(self, tower: str, texts: Sequence[str]) -> np.ndarray:
        """Token ids, int64 (texts, length), of texts in which nothing is a weight, such as captions."""
        from exporter.families.unets import tokens  # noqa: PLC0415 - a plan needs no vocabulary

        literal = self.recipe.prompts.model_copy(update={"weights": None})
        return tokens.rows(self.tokenizer(self.towers[tower]), texts, self.chunk(tower), literal)[0]

    def empty(self, tower: str) -> list[int]:
        """Ids of the empty prompt."""
        found = self.tokenizer(self.towers[tower])
        return list(found("", padding="max_length", max_length=self.chunk(tower))["input_ids"])

    # The source model.

    def scheduler(self) -> Any:  # noqa: ANN401 - a diffusers scheduler
        """Build the recipe's scheduler: its class, with the model's own config and the recipe's changes.

        Raises:
            RecipeError: diffusers has no such scheduler.

        """
        import diffusers  # noqa: PLC0415 - torch

        config = self.configs["scheduler"]
        name = self.recipe.sampler.scheduler or config["_class_name"]
        cls = getattr(diffusers, name, None)
        if cls is None or not hasattr(cls, "set_timesteps"):
            known = sorted(each for each in dir(diffusers) if each.endswith("Scheduler"))
            raise RecipeError(f"sampler.scheduler: diffusers has no scheduler named {name!r}{did_you_mean(name, known)}")
        return cls.from_config({**config, **self.recipe.sampler.config})

    def latent_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of the latent for images of height × width pixels."""
        return batch, self.channels, height // self.factor, width // self.factor

    def replacing(self, *, checkpoint: Checkpoint | None = None, recipe: Recipe | None = None) -> Self:
        """The same family of another checkpoint or recipe."""
        return type(self)(checkpoint or self.checkpoint, recipe or self.recipe)

    def reference(self) -> LatentDiffusionReference:
        """The source model as diffusers runs it, fp32."""
        from exporter.families.unets.reference import LatentDiffusionReference  # noqa: PLC0415 - torch

        return LatentDiffusionReference(self, self.pipeline())

    def pipeline(self) -> Any:  # noqa: ANN401 - a diffusers pipeline
        """Assemble the pipeline of diffusers, fp32."""
        import diffusers  # noqa: PLC0415 - torch
        import transformers  # noqa: PLC0415 - torch

        # diffusers' pipelines name image processors that this model has not, and transformers warns that they lack torchvision.
        transformers.logging.set_verbosity_error()
        from exporter.families.unets import wrappers  # noqa: PLC0415 - torch

        networks = {name: self._network(name, "fp32") for name in ("unet", "vae", *self.towers)}
        # diffusers has one VAE for both halves; a pass may have put another's half in a part's place.
        for half in ("vae_encoder", "vae_decoder"):
            if half in self.configs:
                wrappers.transplant(networks["vae"], half, self.checkpoint.module(half, "fp32"))
        tokenizers = {name: self.tokenizer(name) for name in self.towers.values()}
        cls = getattr(diffusers, self._played)
        pag = self.recipe.sampler.guidance.pag
        options = {**self.pipeline_options(), **({"pag_applied_layers": list(pag.layers)} if pag else {})}
        found = cls(**networks, **tokenizers, scheduler=None, feature_extractor=None, **options)
        # Set afterwards: the constructor would rewrite fields of the scheduler's config that it deems outdated.
        found.scheduler = self.scheduler()
        return found

    def pipeline_options(self) -> Mapping[str, Any]:
        """Further arguments of the pipeline's constructor."""
        raise NotImplementedError

    # Problems.

    def _refuse_model(self) -> None:
        if found := kinds.of_configs(self.configs):
            raise UnsupportedError(found[0].sentence(self.recipe.model.source, found[1]))
        for tower in self.towers:
            if self.configs[tower].get("use_attention_mask"):
                raise UnsupportedError(
                    f"{tower}.use_attention_mask is true, and no mask is exported.\n  Take a model without it."
                )

    def _component_problems(self) -> list[str]:
        known = [*self.towers, "unet", "vae_decoder", "vae_encoder"]
        return [
            f"components.{name}: this model has none{did_you_mean(name, known)}"
            for name in self.recipe.components
            if name not in known
        ]

    def _tile_problems(self) -> list[str]:
        tiled = {name: component.tile for name, component in self.recipe.components.items() if component.tile is not None}
        tile, told = tiled.pop("vae_decoder", None), "tile: only vae_decoder has tiles; leave it out"
        return [*(f"components.{name}.{told}" for name in tiled), *(self.sizes.tile_problems(tile) if tile else ())]

    def _tiled(self, signature: Signature) -> Signature:
        component = self.recipe.components.get("vae_decoder")
        return signature if component is None or component.tile is None else tiled(signature, component.tile.size)

    @property
    def _played(self) -> str:
        """Class name of the pipeline in diffusers that plays the recipe's guidance."""
        usual, perturbed = self.pipeline_class, self.recipe.sampler.guidance.pag
        return usual if perturbed is None else usual.replace("Pipeline", "PAGPipeline")

    @property
    def _tiny(self) -> bool:
        return self.configs["vae"].get("_class_name", self.configs["model_index"]["vae"][1]) == "AutoencoderTiny"

    @cached_property
    def _dims(self) -> Mapping[str, Range]:
        batch = Range(**dict(zip(("min", "typical", "max"), self.recipe.shapes.batch, strict=True)))
        return {"batch": batch, BRANCHES: Range(min=1, typical=self.guidance.rows, max=self.guidance.rows), **self.sizes.dims}

    def _latent(self) -> Port:
        return Port(name="latent", shape=("batch", self.channels, "latent_height", "latent_width"))

    def _image(self) -> Port:
        sides = (f"{self.factor}*{side}" if self.factor > 1 else side for side in ("latent_height", "latent_width"))
        return Port(name="image", shape=("batch", *sides, 3))

    def _signed(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> Signature:
        used = {str(dim).rpartition("*")[2] for port in (*inputs, *outputs) for dim in port.shape}
        dims: dict[str, Range] = {name: allowed for name, allowed in self._dims.items() if name in used}
        return Signature(inputs=tuple(inputs), outputs=tuple(outputs), dims=dims)


def conditioned(name: str, branches: int, *shape: Dim) -> Port:
    """Name a conditioning tensor (batch, branches, …)."""
    return Port(name=name, shape=("batch", branches, *shape))
