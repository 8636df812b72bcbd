"""diffusers' idiom on a small bundle; tests/exporter/test_diffusers_words.py has torch's own generators."""

import gc
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import engines
from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from engines.samplers import Cancelled
from tests.engines import small


def pixels(pictures):
    return np.stack([np.asarray(one) for one in pictures])


def test_the_class_is_there_without_loading_it():
    code = "import sys, engines; before = set(sys.modules); engines.Pipeline; print(*sorted({'numpy', 'PIL'} & before), end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout
    assert engines.Pipeline is Pipeline
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        _ = engines.Pipelines


def test_it_draws_what_generate_draws(pipeline):
    made = pipeline("a red square", negative_prompt="sea", num_inference_steps=2, guidance_scale=3.0, generator=7)
    wanted = pipeline.generate("a red square", negative_prompt="sea", steps=2, guidance_scale=3.0, seed=7)
    np.testing.assert_array_equal(pixels(made.images), pixels(wanted))
    assert made.images[0].info == wanted[0].info


def test_several_prompts_with_several_images_each(pipeline):
    made = pipeline(["a", "red"], num_images_per_prompt=2, generator=[3, 9], height=64, width=32, num_inference_steps=4)
    wanted = pipeline.generate(["a", "red"], images_per_prompt=2, seed=[3, 9], height=64, width=32, steps=4)
    np.testing.assert_array_equal(pixels(made.images), pixels(wanted))


def test_without_a_generator_the_seed_is_a_random_one_that_the_picture_names(pipeline):
    first, second = (pipeline("a").images[0] for _ in range(2))
    assert first.info["seed"] != second.info["seed"]
    np.testing.assert_array_equal(pixels([first]), pixels(pipeline("a", generator=int(first.info["seed"])).images))


def test_the_output_is_read_as_diffusers_reads_it(pipeline):
    output = pipeline("a", generator=1)
    assert output[0] is output.images
    (images,) = pipeline("a", generator=1, return_dict=False)
    np.testing.assert_array_equal(pixels(images), pixels(output.images))


def test_arrays_are_the_images_before_they_are_of_8_bits(pipeline):
    arrays = pipeline(["a", "red"], generator=1, output_type="np").images
    assert (arrays.dtype, arrays.shape) == (np.float32, (2, 32, 32, 3))
    np.testing.assert_array_equal((arrays * 255).round(), pixels(pipeline(["a", "red"], generator=1).images))


def test_latents_are_what_the_decoder_would_get(bundle):
    calls = []
    pipeline = Pipeline(bundle, small.networks(bundle, calls))
    latents = pipeline("a", generator=1, output_type="latent").images
    assert "vae_decoder" not in {name for name, _ in calls}
    assert latents.shape == (1, 4, 4, 4)
    np.testing.assert_array_equal(pipeline.decode(latents), pipeline("a", generator=1, output_type="np").images)


def test_given_latents_are_the_first_noise(pipeline):
    noise = pipeline.seeded(5, 1, 32, 32)()
    made = pipeline("a", latents=noise.astype(np.float64), generator=5).images
    np.testing.assert_array_equal(pixels(made), pixels(pipeline.generate("a", noise=noise)))
    assert "noise_sha256" in made[0].info


def test_after_given_latents_the_generator_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(small, "table", lambda steps=2, _made=small.table: _made(steps, draws=2))
    bundle = small.make(tmp_path / "two")
    pipeline = Pipeline(bundle, small.networks(bundle))
    first, second = pipeline.seeded(5, 1, 32, 32)(), pipeline.seeded(8, 1, 32, 32)()
    made = pipeline("a", latents=first, generator=8).images
    np.testing.assert_array_equal(pixels(made), pixels(pipeline.generate("a", noise=[first, second])))


def test_latents_of_another_shape_are_refused(pipeline):
    with pytest.raises(UnsupportedError, match=r"must be float32 \[1, 4, 4, 4\]"):
        pipeline("a", latents=np.zeros((1, 4, 2, 2), np.float32), generator=1)


def test_it_starts_from_an_image_and_within_a_mask(with_encoder):
    image = Image.fromarray(np.full((32, 32, 3), 90, np.uint8))
    mask = Image.fromarray(np.pad(np.full((16, 16), 255, np.uint8), ((0, 16), (0, 16))))
    made = with_encoder("a", image=image, mask_image=mask, strength=0.5, generator=3).images
    wanted = with_encoder.generate("a", image=image, mask=mask, strength=0.5, seed=3)
    np.testing.assert_array_equal(pixels(made), pixels(wanted))
    with pytest.raises(UnsupportedError, match="latents are the first noise of all, and before it the image has some"):
        with_encoder("a", image=image, latents=np.zeros((1, 4, 4, 4), np.float32))
    with pytest.raises(UnsupportedError, match="image is a ndarray; give a PIL image"):
        with_encoder("a", image=np.zeros((1, 3, 32, 32)))


def test_a_callback_sees_every_step(pipeline):
    seen = []

    def callback(pipe, step, timestep, tensors):
        assert pipe is pipeline
        seen.append((step, timestep, sorted(tensors), tensors["latents"].shape))
        return {}

    pipeline("a", callback_on_step_end=callback, generator=1)
    assert seen == [(0, 999.0, ["latents"], (1, 4, 4, 4)), (1, 599.0, ["latents"], (1, 4, 4, 4))]
    names = ["latents", "pred_original_sample"]
    wish = {"callback_on_step_end": lambda *given: seen.append(sorted(given[3])), "callback_on_step_end_tensor_inputs": names}
    pipeline("a", generator=1, **wish)
    assert seen[-1] == names


def test_a_callback_of_a_class_names_its_own_tensors(pipeline):
    class Callback:
        tensor_inputs = ("pred_original_sample",)
        seen = ()

        def __call__(self, _pipe, _step, _timestep, tensors):
            self.seen = tuple(tensors)

    callback = Callback()
    pipeline("a", callback_on_step_end=callback, generator=1)
    assert callback.seen == Callback.tensor_inputs


def test_what_a_callback_raises_ends_the_sampling(pipeline):
    def enough(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        pipeline("a", callback_on_step_end=enough)


def test_a_callback_changes_nothing(pipeline):
    def returns(_pipe, _step, _timestep, tensors):
        return {"latents": tensors["latents"] * 2}

    def writes(_pipe, _step, _timestep, tensors):
        tensors["latents"][:] = 0

    def interrupts(pipe, *_):
        pipe._interrupt = True

    with pytest.raises(UnsupportedError, match="returned another latents; a compiled sampler goes on from its own"):
        pipeline("a", callback_on_step_end=returns)
    with pytest.raises(ValueError, match="read-only"):
        pipeline("a", callback_on_step_end=writes)
    with pytest.raises(UnsupportedError, match=r"_interrupt: raise engines\.samplers\.Cancelled"):
        pipeline("a", callback_on_step_end=interrupts)
    same = pipeline("a", callback_on_step_end=lambda _pipe, _step, _time, tensors: tensors, generator=1).images
    np.testing.assert_array_equal(pixels(same), pixels(pipeline("a", generator=1).images))


def test_a_fused_bundle_has_no_steps_to_call_back_after(tmp_path):
    bundle = small.make(tmp_path / "fused", **small.fused())
    pipeline = Pipeline(bundle, {})
    with pytest.raises(UnsupportedError, match=r"callback_on_step_end: this bundle is one graph.*pipeline: stepped"):
        pipeline("a", callback_on_step_end=lambda *_: None)
    with pytest.raises(UnsupportedError, match="one graph from prompt to picture"):
        pipeline("a", output_type="latent")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"output_type": "pt"}, r"output_type 'pt': there are pil, np \(float32 arrays\) and latent"),
        ({"eta": 0.5}, r"eta is compiled into the bundle; build one with the recipe's sampler\.step instead"),
        ({"timesteps": [9, 1]}, r"timesteps is compiled .*sampler\.timesteps"),
        ({"prompt_embeds": np.zeros(3)}, "prompt_embeds is made by the bundle's own text encoders"),
        ({"crops_coords_top_left": (8, 0)}, "crops_coords_top_left is inside the graphs"),
        ({"ip_adapter_image": 1}, "ip_adapter_image is for an IP-Adapter"),
        ({"loras": ["style.safetensors:0.8"]}, "LoRA"),
        ({"cross_attention_kwargs": {"scale": 0.5}}, r"cross_attention_kwargs has no part here; a LoRA is .*loras=\[\.\.\.\]"),
        ({"num_inference_step": 3}, "no argument 'num_inference_step'"),
        ({"num_inference_steps": 3}, "no sampler of 3 steps"),
        ({"generator": "7"}, "generator is a str; give a seed"),
        ({"generator": True}, "generator is a bool; give a seed"),
        ({"callback_on_step_end": print, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "prompt_embeds is inside the"),
        ({"callback": print}, "callback is old; use callback_on_step_end"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(pipeline, wish, message):
    with pytest.raises(UnsupportedError, match=message):
        pipeline("a", **wish)


def test_what_asks_for_nothing_is_passed_over(pipeline):
    nothing = {"eta": 0.0, "clip_skip": None, "guidance_rescale": 0.0, "crops_coords_top_left": (0, 0), "callback_steps": 1}
    np.testing.assert_array_equal(pixels(pipeline("a", generator=1, **nothing).images), pixels(pipeline("a", generator=1).images))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("to", "backend='onnxruntime', device=0"),
        ("unet", "networks are engines"),
        ("enable_model_cpu_offload", "low_memory"),
        ("load_lora_weights", "loras="),
    ],
)
def test_attributes_of_diffusers_say_what_to_do_instead(pipeline, name, message):
    with pytest.raises(AttributeError, match=f"^{name}: .*{message}"):
        getattr(pipeline, name)
    assert not hasattr(pipeline, name)
    with pytest.raises(AttributeError, match="Pipeline has no 'colour'"):
        _ = pipeline.colour


class TestFromPretrained:
    @pytest.fixture
    def opened(self, bundle, monkeypatch):
        """What is open, of engines that are Python functions."""
        from contextlib import contextmanager

        from engines import sessions

        there = []

        @contextmanager
        def opened(*arguments):
            there.append(arguments)
            yield small.networks(bundle), "toy 1", []
            there.clear()

        monkeypatch.setattr(sessions, "opened", opened)
        return there

    def test_it_stays_open_until_it_is_closed(self, bundle, opened):
        pipeline = Pipeline.from_pretrained(bundle.folder, backend="onnxruntime", threads=1)
        assert opened[0][1:3] == ("onnxruntime", {"threads": 1})
        assert pipeline("a", generator=1).images[0].info["engine"] == "toy 1"
        pipeline.close()
        assert not opened
        pipeline.close()

    def test_it_closes_when_nobody_has_it_any_more(self, bundle, opened):
        pipeline = Pipeline.from_pretrained(bundle.folder)
        assert opened
        del pipeline
        gc.collect()
        assert not opened

    def test_what_it_cannot_take_is_refused_by_name(self, bundle, opened):
        for wish in ({"torch_dtype": "float16"}, {"safety_checker": print}, {"device_map": "auto"}, {"use_safetensors": False}):
            with pytest.raises(UnsupportedError, match=f"^{next(iter(wish))} "):
                Pipeline.from_pretrained(bundle.folder, **wish)
        pipeline = Pipeline.from_pretrained(bundle.folder, use_safetensors=True, safety_checker=None)
        assert opened[-1][2] == {}
        pipeline.close()
