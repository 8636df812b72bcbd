"""Training of the demo model: the tokenizer, the answers, and exact resumption."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tools.demo import captions, scenes  # noqa: E402
from tools.demo.training import adapt, text, unet, words  # noqa: E402
from tools.demo.training.loop import Plan, learning_rate  # noqa: E402


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Finished earlier stages: real tokenizers, untrained encoders, random latents."""
    folder = tmp_path_factory.mktemp("stages")
    inputs = unet.Inputs(folder / "tokenizer", folder / "text", folder / "latents")
    words.train(inputs.tokenizer)
    torch.manual_seed(1)
    tokenizers = tuple(words.load(inputs.tokenizer / name) for name in ("tokenizer", "tokenizer_2"))
    inputs.text.mkdir()
    state = {"modules": {"encoders": text.Encoders(tokenizers).state_dict()}}
    torch.save(state, inputs.text / "checkpoint.pt")
    inputs.latents.mkdir()
    moments = np.random.default_rng(0).random((16, 8, 8, 8), dtype=np.float32)
    np.save(inputs.latents / "moments.npy", moments.astype(np.float16))
    (inputs.latents / "scaling.json").write_text(json.dumps({"scaling_factor": 0.5}))
    return inputs


def test_every_word_is_one_token_and_other_text_falls_apart(stages):
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = words.load(stages.tokenizer / name)
        assert all(len(tokenizer(word).input_ids) == 3 for word in captions.words())
        odd = tokenizer("Ein Würfel, 12!").input_ids
        assert tokenizer.decode(odd, skip_special_tokens=True).startswith("ein würfel")
        padded = tokenizer("a red star", padding="max_length", max_length=words.MAX_TOKENS).input_ids
        assert padded[4] == len(tokenizer) - 1
        assert set(padded[5:]) == {tokenizer.pad_token_id}


def test_the_pooled_embedding_is_read_at_the_first_end_token(stages):
    encoders = text.load(stages.text, stages.tokenizer)
    ids, ids_2 = encoders.tokens(["a red star"])
    _, pooled = encoders(ids, ids_2)
    changed = ids_2.clone()
    changed[0, 5:] = 7
    assert torch.equal(pooled, encoders(ids, changed)[1])
    changed[0, 2] = 7
    assert not torch.equal(pooled, encoders(ids, changed)[1])


def test_answers_tell_every_statement_apart():
    rng = np.random.default_rng(0)
    said = {captions.parse(captions.caption(scenes.training_scene(seed), rng)) for seed in range(500)}
    assert len({tuple(text.answers(statement)) for statement in said}) == len(said)
    assert all(a < n for statement in said for a, n in zip(text.answers(statement), text.CLASSES, strict=True))


def test_the_rate_rises_then_falls_to_the_floor():
    plan = Plan(100, peak=1.0, warmup=10, floor=0.1)
    rates = [learning_rate(plan, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_a_cut_run_resumes_to_the_same_weights(stages, tmp_path):
    def plan(stop_at=None):
        return Plan(4, warmup=2, decay_ema=0.9, save_every=2, stop_at=stop_at)

    def run(name, stop_at=None, *, resume=False):
        unet.train(tmp_path / name, stages, plan(stop_at), resume=resume, batch=2, fast=False)

    run("whole")
    run("cut", stop_at=3)
    run("cut", resume=True)
    ends = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "cut")]
    assert ends[0]["step"] == ends[1]["step"] == 4
    for kind in ("modules", "ema"):
        first, second = (end[kind]["unet"] for end in ends)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_crossed_scenes_differ_in_one_objects_colour_and_shape_and_hold_only_seen_pairs():
    rng = np.random.default_rng(0)
    for seed in range(300):
        scene = scenes.training_scene(seed)
        four = text.crossed(scene, rng)
        assert four[0] == scene
        assert not {(thing.colour, thing.shape) for each in four for thing in each.things} & scenes.HELD_OUT
        (which,) = (i for i, thing in enumerate(scene.things) if four[3].things[i] != thing)
        pairs = [(each.things[which].colour, each.things[which].shape) for each in four]
        (colour, shape), (other_colour, other_shape) = pairs[0], pairs[3]
        assert pairs[1:3] == [(colour, other_shape), (other_colour, shape)]
        assert colour != other_colour
        assert shape != other_shape


def test_captions_of_the_text_stage_never_name_a_held_out_pair():
    said = [captions.parse(caption) for share in range(10) for caption in text.crossed_captions(share)[0]]
    named = {(colour, shape) for statement in said for _, colour, shape in statement.objects}
    assert not named & scenes.HELD_OUT
    assert len(named) == 48 - 5


def test_interaction_is_nothing_for_sums_and_something_for_products():
    rows, columns = torch.randn(8, 2, 1, 5), torch.randn(8, 1, 2, 5)
    assert text.interaction((rows + columns).reshape(32, 5)).item() == pytest.approx(0, abs=1e-9)
    assert text.interaction((rows * columns).reshape(32, 5)).item() > 0.1


def test_training_starts_with_another_folders_average(stages, tmp_path):
    def run(name, start=None):
        plan = Plan(1, warmup=1, decay_ema=0.9, peak=1e-9)
        unet.train(tmp_path / name, stages, plan, resume=False, start=start, batch=2, fast=False)
        return unet.load(tmp_path / name).state_dict()

    first = run("first")
    content = torch.load(tmp_path / "first" / "checkpoint.pt", weights_only=True)
    for value in content["ema"]["unet"].values():
        value.add_(0.01)
    torch.save(content, tmp_path / "first" / "checkpoint.pt")
    second = run("second", tmp_path / "first")
    assert all(torch.allclose(second[name], first[name] + 0.01, atol=1e-5) for name in first)


def test_an_adapted_denoiser_reads_other_encoders_as_it_read_the_old(stages, monkeypatch):
    monkeypatch.setattr(adapt, "BATCHES", 2)
    old, new = (text.load(stages.text, stages.tokenizer) for _ in range(2))
    new.second.text_projection.weight.mul_(-3.0)
    torch.manual_seed(2)
    denoiser = unet.build().eval().requires_grad_(requires_grad=False)

    def predicted(encoders):
        states, pooled = encoders(*encoders.tokens(["a red circle", ""]))
        extra = {"text_embeds": pooled, "time_ids": torch.tensor([unet.TIME_IDS] * 2)}
        noisy = torch.ones(2, 4, 8, 8)
        return denoiser(noisy, torch.tensor([300, 300]), states, added_cond_kwargs=extra).sample

    expected, misread = predicted(old), predicted(new)
    adapt.adapt(denoiser, old, new)
    found = predicted(new)
    assert (found - expected).norm() < 0.02 * (misread - expected).norm()
