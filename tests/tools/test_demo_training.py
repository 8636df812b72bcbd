"""Training of the demo model: the tokenizer, the answers, and exact resumption."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tools import captions, scenes  # noqa: E402
from tools.demo_training import text, unet, words  # noqa: E402
from tools.demo_training.loop import Plan, learning_rate  # noqa: E402


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
