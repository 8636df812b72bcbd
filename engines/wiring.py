"""Names are the wiring: every input of every network is fed by the one source of its name, and no network waits for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from engines.inputs import Input, taken
from engines.signature import Port, Signature, dimension

#: `text` and `condition` parts run once per picture and feed whoever takes an output's name; the denoiser runs at every step.
#: `shallow` is the outermost part of the denoiser, which takes the deep features that a whole call leaves beside its answer.
#: `pipeline` is all of them but the encoder in one graph, with the sampler unrolled.
Role = Literal["text", "condition", "denoiser", "shallow", "decoder", "encoder", "pipeline"]
#: The roles that run once, before the sampler.
BEFORE = ("text", "condition")


class WiredPart(Protocol):
    """What the wiring knows of a network."""

    @property
    def role(self) -> Role:
        """What it is for."""
        ...

    @property
    def signature(self) -> Signature:
        """What it takes and returns."""
        ...


def of_role(parts: Mapping[str, WiredPart], *roles: Role) -> dict[str, WiredPart]:
    """The parts of these roles by name, in alphabetical order."""
    return {name: part for name, part in sorted(parts.items()) if part.role in roles}


def order(parts: Mapping[str, WiredPart], known: Iterable[str]) -> tuple[str, ...]:
    """Names of the text and condition parts, each after those whose outputs it takes, where the names of `known` are fed.

    Raises:
        ValueError: they wait for each other.

    """
    waiting, there = of_role(parts, *BEFORE), set(known)
    found: list[str] = []
    while waiting:
        ready = [name for name, part in waiting.items() if there.issuperset(part.signature.needed)]
        if not ready:
            raise ValueError(f"these parts wait for each other: {sorted(waiting)}")
        for name in ready:
            there.update(port.name for port in waiting.pop(name).signature.outputs)
        found += ready
    return tuple(found)


def check(parts: Mapping[str, WiredPart], tokens: Sequence[str], scales: Sequence[str], inputs: Mapping[str, Input]) -> None:
    """Raise ValueError where an input is fed by nothing or by two, or what is fed does not fit.

    Args:
        parts: every network.
        tokens: what tokenizers feed: ids and attention masks.
        scales: guidance scales.
        inputs: what users feed.

    """
    text, conditions = (_outputs(of_role(parts, role)) for role in BEFORE)
    own = ["latent", "timestep", *scales]
    # Of one picture to start from, the encoder takes `image`; a bundle without an encoder may call an input so.
    start = ["noise", *(["image", "mask", "strength"] if of_role(parts, "encoder") else [])]
    users = [port for name, entry in inputs.items() for port in entry.taken(name)]
    sources = sorted([*tokens, *text, *conditions, *own, *start, *users])
    if len(set(sources)) != len(sources):
        raise ValueError(f"two sources feed one name: {sources}")
    deep = _outputs(of_role(parts, "denoiser"))[1:]
    fed: dict[Role, set[str]] = {
        "text": {*tokens, *text, *users},
        "condition": {*tokens, *text, *conditions, *users, "noise"},
        "denoiser": {*tokens, *text, *conditions, *users, *own},
        "shallow": {*tokens, *text, *conditions, *users, *own, *deep},
        "decoder": {*conditions, *users, "latent"},
        "encoder": {"image", "noise"},
        "pipeline": {*tokens, *users, *scales, "noise"},
    }
    for name, part in parts.items():
        if loose := set(part.signature.needed) - fed[part.role]:
            raise ValueError(f"nothing feeds {name}'s {sorted(loose)}")
        ports = [port for port in (*part.signature.inputs, *part.signature.outputs) if not port.optional]
        if not part.signature.inputs or not part.signature.outputs:
            raise ValueError(f"{name} must take and return something")
        if len({port.shape[:1] for port in ports}) != 1 or not ports[0].shape:
            raise ValueError(f"the first axis of every port of {name} must be the batch")
    order(parts, {*tokens, *users, "noise"})
    _pictured(parts)
    _kept(parts, deep)
    steered = of_role(parts, "denoiser", "pipeline").values()
    if idle := [scale for scale in scales if not any(_input(part, scale) for part in steered)]:
        raise ValueError(f"no denoiser takes the guidance scales {idle}")
    _users(parts, inputs)


def _outputs(parts: Mapping[str, WiredPart]) -> list[str]:
    return [port.name for part in parts.values() for port in part.signature.outputs]


def _pictured(parts: Mapping[str, WiredPart]) -> None:
    """What takes or makes pictures must fit the denoiser's latent."""
    (denoiser,), (decoder,) = of_role(parts, "denoiser").values(), of_role(parts, "decoder").values()
    latent, output = denoiser.signature.port("latent"), denoiser.signature.outputs[0]
    if latent is None or latent.shape != output.shape:
        raise ValueError("the denoiser must take a latent, and return one output of its shape first")
    ports = (latent, decoder.signature.port("latent"), decoder.signature.port("image"))
    if any(port is None or len(port.shape) != 4 for port in ports):
        raise ValueError("a latent must have 4 axes, and the decoder must take one and return an image of 4 axes")
    for whole in of_role(parts, "pipeline").values():
        image, noise = whole.signature.port("image"), whole.signature.port("noise")
        if image is None or len(image.shape) != 4 or noise is None or len(noise.shape) != 5:
            raise ValueError("a whole pipeline must take noise of 5 axes and return an image of 4")
    for encoder in of_role(parts, "encoder").values():
        image, made = encoder.signature.port("image"), encoder.signature.outputs[0]
        if image is None or len(image.shape) != 4 or made.name != "latent" or made.shape != latent.shape:
            raise ValueError("an encoder must take an image of 4 axes, and return the denoiser's latent")
    for name, part in of_role(parts, "encoder", "condition").items():
        if (noise := _input(part, "noise")) and not _is_noise(part.role, noise, latent):
            raise ValueError(f"{name}'s noise must have the shape of the denoiser's latent")


def _is_noise(role: Role, port: Port, latent: Port) -> bool:
    """Whether a port takes noise of the latent's shape; of pictures themselves, as upscalers have it, also of fewer channels."""
    batch, channels, *sides = port.shape
    fewer = role == "condition" and isinstance(channels, int) and channels <= int(latent.shape[1])
    return (fewer and (batch, *sides) == (latent.shape[0], *latent.shape[2:])) or port.shape == latent.shape


def _kept(parts: Mapping[str, WiredPart], deep: Sequence[str]) -> None:
    """What a denoiser leaves beside its answer must be what its shallow part takes, which gives the same answer."""
    ((whole, denoiser),) = of_role(parts, "denoiser").items()
    answer, *left = denoiser.signature.outputs
    shallow = of_role(parts, "shallow")
    if len(shallow) > 1 or bool(shallow) != bool(deep):
        raise ValueError(f"{whole} must leave deep features where there is a shallow part, and there must be at most one")
    for name, part in shallow.items():
        ports = {port.name: port for port in part.signature.inputs}
        if part.signature.outputs != (answer,) or any(ports.get(port.name) != port for port in left):
            raise ValueError(f"{name} must take the deep features of {whole}, and return its answer")


def _users(parts: Mapping[str, WiredPart], inputs: Mapping[str, Input]) -> None:
    """Every port that a user feeds must be as it is declared, and its sides known once the size of the picture is."""
    (denoiser,) = of_role(parts, "denoiser").values()
    latent = denoiser.signature.port("latent")
    sides = {dimension(dim)[1] for dim in (latent.shape[2:] if latent else ()) if isinstance(dim, str)}
    for name, entry in taken(inputs).items():
        ports = [port for part in parts.values() if (port := _input(part, name))]
        if not ports:
            raise ValueError(f"no network takes the input {name}")
        if any(port != entry.port(name) for port in ports):
            raise ValueError(f"the input {name} must be {entry.port(name).dtype} {list(entry.shape)} wherever it is taken")
        if loose := {dimension(dim)[1] for dim in entry.shape[1:] if isinstance(dim, str)} - sides:
            raise ValueError(f"nothing says how long {sorted(loose)} of the input {name} is")


def _input(part: WiredPart, name: str) -> Port | None:
    return next((port for port in part.signature.inputs if port.name == name), None)
