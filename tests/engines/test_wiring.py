"""Names are the wiring: what runs when, and what is refused because nothing, or too much, feeds an input."""

from dataclasses import dataclass

import pytest

from engines import wiring
from engines.inputs import Input, Preprocessing, View
from engines.signature import Port, Range, Signature

LATENT = ("batch", 4, "height", "width")
IMAGE = ("batch", "8*height", "8*width", 3)
DIMS = {"batch": Range(min=1, typical=1, max=2)} | dict.fromkeys(("height", "width"), Range(min=2, typical=4, max=8))
NOISE = Input(kind="number", shape=("batch",), default=0.0)


@dataclass
class Wired:
    role: wiring.Role
    signature: Signature


def part(role, takes, gives):
    sides = [tuple(Port(name=name, shape=shape) for name, shape in side.items()) for side in (takes, gives)]
    used = str(sides)
    return Wired(role, Signature(inputs=sides[0], outputs=sides[1], dims={k: v for k, v in DIMS.items() if k in used}))


def flat(role, takes, gives):
    """A part whose ports have a batch and nothing else."""
    return part(role, dict.fromkeys(takes.split(), ("batch",)), dict.fromkeys(gives.split(), ("batch",)))


def parts(**changes):
    """A text encoder, a denoiser and a decoder."""
    made = {
        "text": flat("text", "ids", "embeds"),
        "unet": part("denoiser", {"latent": LATENT, "timestep": ("batch",), "embeds": ("batch",)}, {"model_output": LATENT}),
        "vae": part("decoder", {"latent": LATENT}, {"image": IMAGE}),
    }
    return made | changes


def unet(out=LATENT, **more):
    takes = {"latent": LATENT, "timestep": ("batch",), "embeds": ("batch",), **more}
    return part("denoiser", takes, {"model_output": out} if isinstance(out, tuple) else out)


def check(made, tokens=("ids",), scales=(), inputs=()):
    wiring.check(made, tokens, scales, dict(inputs))


def test_what_is_wired_passes():
    check(parts())
    check(parts(unet=unet(scale=("batch",))), scales=["scale"])
    check(parts(unet=unet(TWO), near=shallow()))
    check(parts(unet=unet(label=("batch",))), inputs={"label": NOISE})
    check(parts(encoder=part("encoder", {"image": IMAGE, "noise": LATENT}, {"latent": LATENT})))
    whole = part("pipeline", {"ids": ("batch",), "noise": ("batch", 2, *LATENT[1:])}, {"image": IMAGE})
    check(parts(pipeline_2=whole))


def test_parts_of_a_role_come_in_alphabetical_order():
    made = {"b": flat("text", "x", "y"), "c": flat("condition", "x", "z"), "a": flat("text", "x", "w")}
    assert list(wiring.of_role(made, "text")) == ["a", "b"]
    assert list(wiring.of_role(made, "condition", "text")) == ["a", "b", "c"]
    assert wiring.of_role(made, "decoder") == {}


def test_each_runs_after_those_whose_outputs_it_takes():
    made = {
        "a": flat("condition", "late noise", "last"),
        "b": flat("condition", "early", "late"),
        "z": flat("text", "ids", "early"),
        "y": flat("text", "ids", "other"),
        "unet": flat("denoiser", "last", "out"),
    }
    assert wiring.order(made, ["ids", "noise"]) == ("y", "z", "b", "a")
    assert wiring.order({}, []) == ()
    with pytest.raises(ValueError, match=r"these parts wait for each other: \['a'\]"):
        wiring.order(made, ["ids"])  # nobody feeds the noise
    circle = {"one": flat("text", "b", "a"), "two": flat("text", "a", "b"), "free": flat("text", "ids", "c")}
    with pytest.raises(ValueError, match=r"wait for each other: \['one', 'two'\]"):
        wiring.order(circle, ["ids"])


@pytest.mark.parametrize(
    ("made", "more", "message"),
    [
        (parts(), {"tokens": ("ids", "embeds")}, r"two sources feed one name: \['embeds', 'embeds', 'ids', 'latent', "),
        (parts(), {"inputs": {"noise": NOISE}}, "two sources feed one name"),
        (parts(other=flat("condition", "ids", "embeds")), {}, "two sources feed one name"),
        (parts(), {"tokens": ()}, r"nothing feeds text's \['ids'\]"),
        (parts(unet=unet(more=("batch",), less=("batch",))), {}, r"nothing feeds unet's \['less', 'more'\]"),
        # What comes of the sampler, or of a condition, is not there when texts are encoded; a decoder takes no text.
        (parts(text=flat("text", "ids latent", "embeds")), {}, r"nothing feeds text's \['latent'\]"),
        (parts(text=flat("text", "ids noise", "embeds")), {}, r"nothing feeds text's \['noise'\]"),
        (parts(other=flat("condition", "timestep", "x")), {}, r"nothing feeds other's \['timestep'\]"),
        (
            parts(vae=part("decoder", {"latent": LATENT, "embeds": ("batch",)}, {"image": IMAGE})),
            {},
            r"nothing feeds vae's \['embeds'\]",
        ),
        (parts(text=part("text", {}, {"embeds": ("batch",)})), {}, "text must take and return something"),
        (parts(text=flat("text", "ids", "embeds"), more=flat("text", "ids", "")), {}, "more must take and return something"),
        (
            parts(text=part("text", {"ids": (2, "batch")}, {"embeds": ("batch",)})),
            {},
            "the first axis of every port of text must be the batch",
        ),
        (
            parts(text=part("text", {"ids": ()}, {"embeds": ()})),
            {},
            "the first axis of every port of text must be the batch",
        ),
        (
            parts(text=flat("text", "ids b", "embeds a"), other=flat("text", "a", "b")),
            {},
            r"these parts wait for each other: \['other', 'text'\]",
        ),
        (parts(), {"scales": ["scale"]}, r"no denoiser takes the guidance scales \['scale'\]"),
    ],
)
def test_an_input_that_is_fed_by_nothing_or_by_two_is_refused(made, more, message):
    with pytest.raises(ValueError, match=message):
        check(made, **more)


def encoder(image=IMAGE, noise=LATENT, name="latent", out=LATENT):
    return part("encoder", {"image": image, "noise": noise}, {name: out})


def whole(image=IMAGE, noise=("batch", 2, *LATENT[1:])):
    return part("pipeline", {"ids": ("batch",), "noise": noise}, {"image": image})


TWO = {"model_output": LATENT, "more": LATENT}
FLAT = ("batch", 4, "height")


def shallow(more=LATENT, out="model_output"):
    """What calls of a denoiser with the outputs of TWO leave, taken up again."""
    return part("shallow", {"latent": LATENT, "timestep": ("batch",), "more": more}, {out: LATENT})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (parts(unet=unet(("batch", 8, "height", "width"))), "must take a latent, and return one output of its shape"),
        (parts(unet=unet(TWO)), "unet must leave deep features where there is a shallow part"),
        (parts(near=shallow()), r"nothing feeds near's \['more'\]"),
        (
            parts(near=part("shallow", {"latent": LATENT}, {"model_output": LATENT})),
            "unet must leave deep features where there is a shallow part",
        ),
        (parts(unet=unet(TWO), near=shallow(), nearer=shallow()), "there must be at most one"),
        (parts(unet=unet(TWO), near=shallow(more=("batch", 4, 1, 1))), "near must take the deep features of unet, and return"),
        (parts(unet=unet(TWO), near=shallow(out="other")), "near must take the deep features of unet, and return its answer"),
        (parts(unet=part("denoiser", {"embeds": ("batch",)}, {"model_output": LATENT})), "must take a latent"),
        (
            parts(unet=part("denoiser", {"latent": FLAT, "timestep": ("batch",)}, {"model_output": FLAT})),
            "a latent must have 4 axes",
        ),
        (parts(vae=part("decoder", {"latent": LATENT}, {"image": IMAGE[:3]})), "return an image of 4 axes"),
        (parts(vae=part("decoder", {"latent": LATENT}, {"picture": IMAGE})), "return an image of 4 axes"),
        (parts(pipeline_2=whole(image=IMAGE[:3])), "a whole pipeline must take noise of 5 axes and return an image of 4"),
        (parts(pipeline_2=whole(noise=LATENT)), "noise of 5 axes"),
        (parts(encoder=encoder(image=IMAGE[:3])), "an encoder must take an image of 4 axes, and return the denoiser's latent"),
        (parts(encoder=encoder(name="moments")), "return the denoiser's latent"),
        (parts(encoder=encoder(out=("batch", 8, "height", "width"))), "return the denoiser's latent"),
        (parts(encoder=encoder(noise=("batch", 4, 1, 1))), "encoder's noise must have the shape of the denoiser's latent"),
        (
            parts(hint=part("condition", {"noise": ("batch", 1)}, {"states": ("batch",)})),
            "hint's noise must have the shape of the denoiser's latent",
        ),
        (
            parts(hint=part("condition", {"noise": ("batch", 5, *LATENT[2:])}, {"states": ("batch",)})),
            "hint's noise must have the shape of the denoiser's latent",
        ),
        (parts(encoder=encoder(noise=("batch", 3, *LATENT[2:]))), "encoder's noise must have the shape"),
    ],
)
def test_what_takes_or_makes_pictures_must_fit_the_latent(made, message):
    with pytest.raises(ValueError, match=message):
        check(made)


GREY = {"kind": "image", "preprocessing": {}}


@pytest.mark.parametrize(
    ("shape", "entry", "message"),
    [
        (None, NOISE, "no network takes the input hint"),
        (("batch", 1), NOISE, r"the input hint must be float32 \['batch'\] wherever it is taken"),
        (("batch",), NOISE.model_copy(update={"kind": "integer"}), r"the input hint must be int64 \['batch'\] wherever"),
        (
            ("batch", "length", 8, 1),
            Input.model_validate(GREY | {"shape": ("batch", "length", 8, 1)}),
            r"nothing says how long \['length'\] of the input hint is",
        ),
        (("batch", "16*height", 8, 1), Input.model_validate(GREY | {"shape": ("batch", "16*height", 8, 1)}), ""),
    ],
)
def test_what_users_feed_is_taken_as_declared_and_its_size_is_known(monkeypatch, shape, entry, message):
    monkeypatch.setitem(DIMS, "length", Range(min=1, typical=1, max=9))
    made = parts(unet=unet(**({"hint": shape} if shape else {})))
    if not message:
        check(made, inputs={"hint": entry})
        return
    with pytest.raises(ValueError, match=message):
        check(made, inputs={"hint": entry})


def test_a_picture_feeds_every_port_that_is_a_view_of_it():
    small = View(shape=("batch", 6, 6, 3), preprocessing=Preprocessing())
    picture = Input(kind="image", shape=IMAGE, preprocessing=Preprocessing(), views={"hint_seen": small})
    takes, hinted = {"ids": ("batch",), "hint_seen": small.shape}, unet(hint=IMAGE)
    text = part("text", takes, {"embeds": ("batch",)})
    check(parts(text=text, unet=hinted), inputs={"hint": picture})
    assert wiring.order(parts(text=text), ["ids", "hint_seen"]) == ("text",)
    for wrong, told in (
        ({"text": part("text", {**takes, "hint_seen": IMAGE}, {"embeds": ("batch",)})}, "the input hint_seen must be"),
        ({"text": parts()["text"]}, "no network takes the input hint_seen"),
        (
            {"text": part("text", {"ids": ("batch",), "hint_seen": small.shape}, {"embeds": ("batch",), "hint": ("batch",)})},
            "two",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            check(parts(**{"unet": hinted, **wrong}), inputs={"hint": picture})
