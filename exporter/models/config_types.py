"""Fields of a model's configs that are computed with: what each must hold, so that a config of odd types is told as such."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from engines.errors import UnsupportedError

_SHOWN = 60  # characters of a value in a message
#: Numbers above are what a mistake makes, and would be multiplied by others.
_MOST = 10**9


def _count(value: object) -> bool:
    return type(value) is int and 0 < value <= _MOST


def _counts(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_count, value))


def _nested(value: object) -> bool:
    return _count(value) or (isinstance(value, list | tuple) and bool(value) and all(map(_nested, value)))


def _words(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, str) for each in value)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _MOST and not math.isnan(value)


def _length(value: object) -> bool:  # of prompts: one that says there is no limit is a float, and very long
    return isinstance(value, int | float) and type(value) is not bool and 2 <= value < math.inf


#: Kind of component → field → test, and how a message says what it asks; null is what a library takes for "none".
_FIELDS: Mapping[str, Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "unet": {
        **dict.fromkeys(("in_channels", "out_channels"), (_count, "a whole number above 0")),
        **dict.fromkeys(
            ("projection_class_embeddings_input_dim", "time_cond_proj_dim"), (_count, "a whole number above 0, or null")
        ),
        "block_out_channels": (_counts, "a list of whole numbers above 0"),
        **dict.fromkeys(("cross_attention_dim", "layers_per_block"), (_nested, "a whole number above 0, or a list of such")),
        "transformer_layers_per_block": (_nested, "a whole number above 0, or a list of such"),
        "reverse_transformer_layers_per_block": (_nested, "a list of whole numbers above 0, or null"),
        **dict.fromkeys(("down_block_types", "up_block_types"), (_words, "a list of names")),
        "mid_block_type": (lambda value: isinstance(value, str), "a name, or null"),
    },
    "vae": {
        **dict.fromkeys(("in_channels", "out_channels", "latent_channels"), (_count, "a whole number above 0")),
        "block_out_channels": (_counts, "a list of whole numbers above 0"),
        "decoder_block_out_channels": (_counts, "a list of whole numbers above 0, or null"),
        "upsampling_scaling_factor": (_count, "a whole number above 0"),
        **dict.fromkeys(("scaling_factor", "shift_factor"), (_number, "a number, or null")),
    },
    "text_encoder": {
        **dict.fromkeys(("hidden_size", "projection_dim", "vocab_size", "num_hidden_layers"), (_count, "a whole number above 0")),
        "architectures": (_words, "a list of names, or null"),
        "max_position_embeddings": (lambda value: _count(value) and _length(value), "a whole number above 1"),
    },
    "tokenizer": {"model_max_length": (_length, "a number above 1")},
    "scheduler": {
        "_class_name": (lambda value: isinstance(value, str), "a name"),
        "num_train_timesteps": (_count, "a whole number above 0"),
    },
}
#: Fields that may be null.
_NULL = {"projection_class_embeddings_input_dim", "time_cond_proj_dim", "reverse_transformer_layers_per_block", "mid_block_type"}
_NULL |= {"scaling_factor", "shift_factor", "architectures", "decoder_block_out_channels"}


def refuse_types(component: str, config: Mapping[str, Any], where: str) -> None:
    """Raise UnsupportedError where a config holds something else than its field can be computed with.

    Args:
        component: its place in a pipeline, such as `text_encoder_2`.
        config: as its JSON file has it.
        where: folder or file that it came from, for the message.

    """
    if problems := list(_problems(component, config)):
        listed = "; ".join(problems)
        raise UnsupportedError(f"{where}: {component}: {listed}.\n  Take the config that was published with these weights.")


def refuse_index(index: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    """Raise UnsupportedError where `model_index.json` does not name a component's library and class."""
    for name in names:
        entry = index[name]
        if isinstance(entry, list) and not (len(entry) == 2 and all(isinstance(each, str | None) for each in entry)):
            raise UnsupportedError(
                f"{where}: model_index.json: {name} must be its library and class, not {_brief(entry)}.\n"
                '  Write it as save_pretrained does: ["diffusers", "UNet2DConditionModel"], or [null, null] for none.'
            )


def _problems(component: str, config: Mapping[str, Any]) -> Iterator[str]:
    kind = "vae" if component.startswith("vae") else component.rstrip("_0123456789")
    for name, (holds, asked) in _FIELDS.get(kind, {}).items():
        value = config.get(name)
        if name in config and not holds(value) and not (value is None and name in _NULL):
            yield f"{name} must be {asked}, not {_brief(value)}"


def _brief(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) <= _MOST else "a number of many digits"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
