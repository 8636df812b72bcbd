"""How a server is set up: where it listens, how it batches, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from engines.errors import UnsupportedError
from engines.plugins import did_you_mean
from engines.strict import Frozen, describe

#: Fields that have a flag of their own, or are no one's to type.
_FLAGGED = {"keys", "cors", "loras"}


class ServeOptions(Frozen):
    """Everything that `t2iexport serve` can be told; the descriptions are its help."""

    keys: tuple[str, ...] = Field(default=(), description="API keys, one of which every request must carry; none: open to all")
    cors: tuple[str, ...] = Field(default=(), description="origins of web pages elsewhere that may call; none by default")
    loras: dict[str, Path] = Field(default_factory=dict, description="LoRA files by the names that requests choose them by")
    batching: Literal["auto", "continuous", "fixed"] = Field(
        default="auto",
        description="continuous: requests at any step share calls of the networks; fixed: requests of one size, steps and "
        "sampler are drawn together from first to last; auto: fixed where the bundle cannot be run otherwise",
    )
    batch: int | None = Field(default=None, ge=1, description="pictures at once of one bundle, at most what it was built for")
    wait_ms: float = Field(default=5.0, ge=0, le=1000, description="milliseconds that a call waits for others to join it")
    queue: int = Field(default=64, ge=1, description="pictures that may wait; what would be more is refused with status 429")
    deadline: float = Field(default=600.0, gt=0, description="seconds from a request to its answer; then it is status 504")
    drain: float = Field(default=120.0, ge=0, description="seconds in which to finish what was accepted, after SIGTERM")
    memory: float | None = Field(
        default=None, gt=0, description="GB of engine files of bundles that may be open at once; the least lately used is closed"
    )
    max_pixels: int = Field(default=4_194_304, ge=1, description="height times width of a picture")
    max_input_pixels: int = Field(default=16_777_216, ge=1, le=64_000_000, description="pixels of a picture sent here")
    max_steps: int = Field(default=150, ge=1, description="steps of a sampler")
    max_images: int = Field(default=8, ge=1, description="pictures of one request")
    max_prompt: int = Field(default=8192, ge=1, description="characters of a prompt")
    max_body: int = Field(default=67_108_864, ge=1024, description="bytes of a request")
    read_seconds: float = Field(default=30.0, gt=0, description="seconds in which a request must arrive, and an answer be read")
    kept_mb: float = Field(default=256.0, ge=0, description="MB of finished pictures kept for an hour for `response_format: url`")

    @classmethod
    def of(cls, pairs: Mapping[str, str], **given: tuple[str, ...] | dict[str, Path]) -> Self:
        """Read `--set KEY=VALUE`; `given` are the fields that have flags.

        Raises:
            UnsupportedError: a key is unknown, or a value out of range.

        """
        known = [name for name in cls.model_fields if name not in _FLAGGED]
        for key in pairs:
            if key not in known:
                raise UnsupportedError(f"--set: no key {key!r}{did_you_mean(key, known)}\nThere are:\n{cls.told()}")
        try:
            return cls.model_validate_strings({**pairs}).model_copy(update=given)
        except ValidationError as error:
            raise UnsupportedError(f"--set is not valid:\n{describe(error)}") from error

    @classmethod
    def told(cls) -> str:
        """One line a key: its default, and what it is."""
        return "\n".join(f"  {name}={default}  {about}" for name, default, about in cls.rows())

    @classmethod
    def rows(cls) -> list[tuple[str, str, str]]:
        """Every key of `--set`, its default as one types it, and what it is."""
        fields = {name: field for name, field in cls.model_fields.items() if name not in _FLAGGED}
        return [
            (name, "" if field.default is None else f"{field.default}", field.description or "") for name, field in fields.items()
        ]
