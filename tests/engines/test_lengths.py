"""Texts of open length: what is padded for the sake of one array is cut off before a network sees it."""

import numpy as np
import pytest

from engines import lengths
from engines.manifest import OpenLength, Tokenizer
from engines.pipeline import Pipeline
from engines.signature import Port, Range, Signature
from tests.engines import small

SIGNATURE = Signature(
    inputs=(Port(name="latent", shape=("batch", 2)), Port(name="text", shape=("batch", 2, "2*words"))),
    outputs=(Port(name="states", shape=("batch", "3*made")), Port(name="sum", shape=("batch",))),
    dims={name: Range(min=1, typical=2, max=9) for name in ("batch", "words", "made")},
)


def pool(words):
    text = np.full((len(words), 2, 2 * max(words)), 99.0, np.float32)  # what pads is not zero, and must not count
    for row, count in enumerate(words):
        text[row, :, : 2 * count] = row
    return {"latent": np.arange(2.0 * len(words), dtype=np.float32).reshape(-1, 2), "text": text, "words": np.array(words)}


def test_pictures_of_one_length_run_together_and_padding_is_cut_off():
    seen = []

    def network(inputs):
        seen.append({name: array.shape for name, array in inputs.items()})
        count, length = len(inputs["latent"]), inputs["text"].shape[2] // 2
        return {"states": np.full((count, 3 * (length + 1)), length), "sum": inputs["text"].sum((1, 2)) + inputs["latent"][:, 0]}

    given = pool([3, 1, 3, 2])
    found = lengths.run(network, SIGNATURE, lengths.taken(SIGNATURE, {**given, "other": np.zeros(4)}))
    assert seen == [{"latent": (count, 2), "text": (count, 2, 2 * words)} for count, words in ((2, 3), (1, 1), (1, 2))]
    assert found["sum"].tolist() == [0 + 0, 4 * 1 + 2, 12 * 2 + 4, 8 * 3 + 6]
    assert found["made"].tolist() == [4, 2, 4, 3]
    assert found["states"].shape == (4, 12)
    assert [[row[0], row[:6].tolist().count(row[0])] for row in found["states"][[1]]] == [[1, 6]]
    assert found["states"][1, 6:].tolist() == [0] * 6


def test_what_has_one_length_is_handed_on_as_it_is():
    given, seen = pool([2, 2]), []

    def network(inputs):
        seen.append(inputs)
        return {"states": np.zeros((2, 3)), "sum": np.zeros(2)}

    assert lengths.run(network, SIGNATURE, given)["made"].tolist() == [1, 1]
    assert all(seen[0][name] is given[name] for name in ("latent", "text"))  # an engine that sees them again knows it
    closed = SIGNATURE.model_copy(update={"outputs": ()})
    del given["words"]
    assert lengths.run(network, closed, given) == {"states": pytest.approx(np.zeros((2, 3))), "sum": pytest.approx(np.zeros(2))}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that reads prompt and negative prompt apart, each as long as it is."""
    dims = {name: Range(min=2, typical=4, max=small.LENGTH) for name in ("tokenizer_length", "negative_length")}
    made = {"prompt_length": dims["tokenizer_length"], "negative_prompt_length": dims["negative_length"]}
    ids = [Port(name=f"{name}_ids", dtype="int64", shape=("batch", 1, f"{name}_length")) for name in ("tokenizer", "negative")]
    states = [Port(name=name, shape=("batch", f"{name}_length", 2)) for name in ("prompt", "negative_prompt")]
    parts = small.draft().parts
    unet = parts["unet"].signature
    taken = [port for port in unet.inputs if port.name != "prompt_embeds"]
    text = Signature(inputs=tuple(ids), outputs=tuple(states), dims={"batch": small.BATCH, **dims, **made})
    denoiser = Signature(inputs=(*taken, *states), outputs=unet.outputs, dims={**unet.dims, **made})
    entries = {
        name: Tokenizer(
            file="tokenizers/tokenizer.json",
            length=small.LENGTH,
            feeds=f"{name}_ids",
            open=OpenLength(dim=f"{name}_length", branch=branch),
        )
        for name, branch in (("tokenizer", "prompt"), ("negative", "negative"))
    }
    changed = {
        "text_encoder": parts["text_encoder"].model_copy(update={"signature": text}),
        "unet": parts["unet"].model_copy(update={"signature": denoiser}),
    }
    return small.make(tmp_path_factory.mktemp("open") / "b", tokenizers=entries, parts={**parts, **changed})


def networks(bundle, calls):
    def text(inputs):
        def read(ids):
            return np.stack([ids[:, 0] / 16, ids[:, 0] ** 2 / 256], axis=2).astype(np.float32)

        return {"prompt": read(inputs["tokenizer_ids"]), "negative_prompt": read(inputs["negative_ids"])}

    def denoise(inputs):
        yes, no = (inputs[name].mean(axis=(1, 2)) for name in ("prompt", "negative_prompt"))
        steer = np.tanh(no + inputs["guidance_scale"] * (yes - no))[:, None, None, None]
        return {"model_output": np.tanh(inputs["latent"] + steer)}

    def checked(name, function):
        def call(inputs):
            calls.append((name, bundle.manifest.parts[name].signature.sizes(inputs)))
            return function(inputs)

        return call

    return {
        "text_encoder": checked("text_encoder", text),
        "unet": checked("unet", denoise),
        "vae_decoder": small.functions()["vae_decoder"],
    }


def test_a_picture_does_not_depend_on_how_long_its_neighbours_texts_are(bundle):
    calls = []
    pipeline = Pipeline(bundle, networks(bundle, calls))
    prompts, negatives = ["a red square", "a", "the blue sea"], ["", "a red", ""]
    together = pipeline.generate(prompts, negative_prompt=negatives, seed=3)
    sizes = [(each["prompt_length"], each["negative_prompt_length"], each["batch"]) for name, each in calls if name == "unet"]
    assert sizes == [(5, 2, 2), (3, 4, 1)] * 2  # the first and the last are of one length
    for index, (prompt, negative) in enumerate(zip(prompts, negatives, strict=True)):
        (alone,) = pipeline.generate(prompt, negative_prompt=negative, seed=3 + index)
        np.testing.assert_array_equal(np.asarray(together[index]), np.asarray(alone))
    (other,) = pipeline.generate(prompts[0], negative_prompt="red", seed=3)
    assert (np.asarray(other) != np.asarray(together[0])).any()


def test_conditioning_says_how_long_it_is(bundle):
    found = Pipeline(bundle, networks(bundle, [])).encode(["a red square", "a"], "red")
    assert found["prompt_length"].tolist() == [5, 3]
    assert found["negative_prompt_length"].tolist() == [3, 3]
    assert (found["prompt"][1, 3:] == 0).all()
