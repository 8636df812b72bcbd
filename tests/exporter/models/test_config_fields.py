"""Every field that a class of diffusers or transformers reads is known, so that one which nobody reads is named."""

import inspect
import json

import pytest

from exporter.models import leftovers

#: Fields that transformers wrote into every config before version 5, of training and of making text.
OLD = """
add_cross_attention bad_words_ids begin_suppress_tokens cross_attention_hidden_size decoder_start_token_id
diversity_penalty do_sample dropout early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing is_decoder length_penalty max_length
min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix pruned_heads
remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens task_specific_params
temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
typical_p use_bfloat16 use_cache
""".split()  # noqa: SIM905 - a list of forty lines says no more


def read() -> dict[str, list[str]]:
    """Class → the fields that it reads, from the libraries themselves."""
    import diffusers
    import transformers
    from diffusers import SchedulerMixin, schedulers

    def own(cls):
        return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs", "args"}

    found = {name: own(getattr(diffusers, name)) for name in ("AutoencoderKL", "AutoencoderTiny", "UNet2DConditionModel")}
    text = {*transformers.CLIPTextConfig().to_dict(), *transformers.PretrainedConfig().to_dict(), *OLD}
    found |= dict.fromkeys(("CLIPTextModel", "CLIPTextModelWithProjection"), text)
    every = [getattr(schedulers, name) for name in dir(schedulers) if name.endswith("Scheduler")]
    found["Scheduler"] = set().union(*(own(cls) for cls in every if issubclass(cls, SchedulerMixin)))
    return {name: sorted(fields) for name, fields in sorted(found.items())}


def test_the_list_is_the_libraries_own():
    listed, wanted = json.loads(leftovers._FIELDS.read_text()), read()
    assert {name: sorted(set(wanted[name]) - set(listed.get(name, ()))) for name in wanted} == {name: [] for name in wanted}, (
        "write config_fields.json anew: python -m tests.exporter.models.test_config_fields"
    )


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "text_encoder_2", "scheduler"])
def test_an_unknown_field_is_named(component, tiny_sdxl, tmp_path):
    import shutil

    from exporter.recipe.schema import Recipe
    from exporter.stages.plan import Plan

    folder = shutil.copytree(tiny_sdxl, tmp_path / "model")
    file = folder / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"new_field": [1, 2]}))
    text = f"model: {{source: {folder}}}\nsampler: {{steps: [2]}}\nshapes: {{height: [32, 32, 32], width: [32, 32, 32]}}\n"
    (note,) = Plan(Recipe.parse(text, "x")).notes
    assert note.startswith(f"{component}: its config has new_field: [1, 2], which ")


if __name__ == "__main__":
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(fields)}" for name, fields in read().items())
    leftovers._FIELDS.write_text(f"{{\n{rows}\n}}\n")
