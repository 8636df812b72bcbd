"""How a training goes, whatever is learned. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from engines.errors import UnsupportedError
from engines.strict import Frozen
from exporter.recipe.pass_options import Kind, PassOptions

if TYPE_CHECKING:
    from exporter.part import Part

Text = Annotated[str, StringConstraints(min_length=1)]
Weight = Annotated[float, Field(ge=0)]


class Dataset(Frozen):
    """A data set of the `datasets` library."""

    dataset: Text = Field(description="hub id, or a folder that save_to_disk wrote")
    config: Text | None = Field(default=None, description="which of the data set's configurations")
    split: Text = "train"
    revision: Text | None = Field(default=None, description="hub revision")
    image: Text = Field(default="image", description="column of the pictures")
    caption: Text = Field(default="text", description="column of the captions; of several, the first counts")


class Classifier(Frozen):
    """A frozen image classifier, whose features the last rounds compare (RCFD, arXiv 2211.12039)."""

    source: Text = Field(description="folder or hub id of a classifier of transformers, with its preprocessor_config.json")
    revision: Text | None = Field(default=None, description="hub revision")
    temperature: float = Field(default=0.9, gt=0, description="of the teacher's features; below 1 it sharpens them")
    rounds: int = Field(default=1, ge=1, description="last rounds that learn by it; those before learn the clean latent")
    weight: Weight = Field(default=1.0, description="of the features' divergence")
    latent: Weight = Field(default=0.0, description="of the squared error of the clean latent, which stays beside it")


class Options(PassOptions):
    """Data, and how the optimizer goes."""

    kind: ClassVar[Kind] = "training"

    data: Text | Dataset = Field(
        description="folder of pictures with captions (a .txt or .json beside each picture, or a metadata.jsonl), "
        "webdataset's shards/*.tar, or {dataset: hub id}"
    )
    steps: int = Field(ge=1, description="of the optimizer")
    batch: int = Field(default=8, ge=1, description="pictures per process and pass")
    accumulate: int = Field(default=1, ge=1, description="passes per step")
    learning_rate: float = Field(default=5e-5, gt=0)
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="of the learning rate, after the warm-up")
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rate rises")
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    empty: float = Field(default=0.1, ge=0, le=1, description="share of captions left empty, which guidance needs")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the weights' moving average, which becomes the result"
    )
    mixed_precision: Literal["no", "tf32", "bf16", "fp16"] = Field(
        default="no", description="of what the networks compute; tf32 is float32 with short products, on NVIDIA GPUs"
    )
    gradient_checkpointing: bool = Field(default=False, description="less memory, more time")
    capture: Literal["auto", "never"] = Field(
        default="auto", description="run a step as one CUDA graph where that can be: one GPU, no accumulation, no fp16"
    )
    teacher: Text | None = Field(
        default=None, description="another model of the same kind to learn from, as model.source names it"
    )
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1, description="steps; a killed training goes on from the last one")
    log_with: Literal["tensorboard"] | None = Field(default=None, description="accelerate's tracker that gets the losses too")

    @property
    def verb(self) -> str:
        """The pass, as recipes name it."""
        return type(self).__name__.lower()

    @property
    def guides(self) -> bool:
        """Whether the teacher is asked under guidance, so that an empty prompt must be what it is there."""
        return False

    @property
    def plays(self) -> bool:
        """Whether the teacher plays trajectories first, which are kept."""
        return False

    @property
    def sees(self) -> Classifier | None:
        """The classifier through whose eyes pictures are compared, where the pass has one."""
        return None

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same config.

        Raises:
            UnsupportedError: the network takes guidance as an input.

        """
        if source.get("time_cond_proj_dim") is not None:
            raise UnsupportedError(
                f"{self.verb}: this UNet takes guidance as an input (time_cond_proj_dim), and the losses know none.\n"
                "  Distil the model that it was made from."
            )
        return dict(source)

    def __call__(self, part: Part) -> Part:
        """Nothing can be learned from the part alone; `teach` is called instead."""
        raise UnsupportedError(f"{self.verb} of {part.name} needs a teacher and pictures.\n  Build it, or run t2iexport distill.")

    @property
    def summary(self) -> str:
        """The pass and how long, as the blame table shows it."""
        return f"{self.verb}: {self.steps} steps"


class Played(Options):
    """What the teacher draws first, from noise and captions alone."""

    guidance: float = Field(default=7.5, ge=1, description="of the teacher's trajectories, and so of every picture afterwards")
    count: int = Field(default=20_000, ge=1, description="trajectories that the teacher plays, captions in turn")
    teacher_steps: int = Field(default=24, ge=1, description="DDIM steps of a trajectory")
    play_batch: int = Field(default=64, ge=1, description="trajectories at a time")
    empty: float = Field(default=0.0, ge=0, le=0, description="none: guidance is in the trajectories")

    @property
    def stops(self) -> tuple[int, ...]:
        """After how many of the teacher's steps a trajectory is kept, besides its start; the last is its end."""
        return (self.teacher_steps,)

    @property
    def guides(self) -> bool:
        """It is."""
        return True

    @property
    def plays(self) -> bool:
        """It does."""
        return True

    @property
    def played(self) -> dict[str, Any]:
        """What the trajectories depend on, besides teacher and captions."""
        names = {"guidance", "count", "teacher_steps", "play_batch", "seed", "mixed_precision"}
        return self.model_dump(mode="json", include=names) | {"stops": self.stops}


class LossWeights(Frozen):
    """By which each loss counts; all are mean squared errors in float32, the features' as feature_error says."""

    task: Weight = Field(default=1.0, description="student's output against the noise, velocity or sample that was put in")
    output: Weight = Field(default=1.0, description="student's output against the teacher's")
    feature: Weight = Field(default=1.0, description="features against the teacher's")


class Imitated(Options):
    """Losses of a student that imitates its teacher."""

    weights: LossWeights = LossWeights()
    features: Literal["last_of_stage", "self_attention", "cross_attention", "resnet", "feed_forward", "layers"] | None = Field(
        default="self_attention",
        description="what the feature loss compares: BK-SDM last_of_stage, KOALA self_attention, SSD-1B layers",
    )
    feature_error: Literal["summed", "relative"] = Field(
        default="summed",
        description="of the modules: summed, as BK-SDM does; or each as a share of the teacher's mean square there, and averaged",
    )

    @property
    def watched(self) -> bool:
        """Whether features are compared at all."""
        return self.features is not None and self.weights.feature > 0


class ImageLossWeights(Frozen):
    """By which each difference of two pictures counts, whose values are in [0, 1]."""

    absolute: Weight = Field(default=1.0, description="mean of the absolute difference")
    squared: Weight = Field(default=0.0, description="mean of its square, which large errors dominate")
    edges: Weight = Field(default=0.0, description="mean absolute difference of the steps from pixel to pixel, which keeps edges")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("every weight is zero, so there is nothing to learn; leave absolute out, or raise one")
        return self
