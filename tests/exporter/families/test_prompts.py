"""What a recipe decides about prompts, against diffusers: same weights, same texts, same conditioning."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from engines.tokenizer import Tokenizers
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.onnx.export import export, save
from exporter.recipe.prompts import Prompts
from tests.exporter import equality
from tests.exporter.weighted import A1111, Compel, by_hand

PROMPTS, NEGATIVES = equality.PROMPTS, equality.NEGATIVES


@pytest.fixture(params=["sd", "sdxl"])
def model(request, tiny_sd, tiny_sdxl):
    return {"sd": (Sd, tiny_sd), "sdxl": (Sdxl, tiny_sdxl)}[request.param]


def conditioning(family, fed):
    """Outputs of every text part, by port."""
    found = {}
    with torch.no_grad():
        for tower in family.towers:
            part = family.part(tower, "fp32")
            outputs = part.module(*(torch.from_numpy(fed[port.name]) for port in part.signature.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            found |= dict(zip([port.name for port in part.signature.outputs], outputs, strict=True))
    return found


@pytest.mark.parametrize("mode", ["classifier_free", "none"])
@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_is_that_of_diffusers(model, mode, skip):
    family = equality.family(*model, mode, prompts=Prompts(clip_skip=skip))
    plain = equality.family(*model, mode)
    negative = NEGATIVES[0] if mode == "classifier_free" else None
    reference = family.reference()
    found = conditioning(family, reference.tokenize(PROMPTS, negative))
    usual = conditioning(plain, reference.tokenize(PROMPTS, negative))
    wanted = reference.encode(PROMPTS, negative)
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        equality.close(tensor, torch.from_numpy(wanted[name]))
    states = found["prompt_embeds"], usual["prompt_embeds"]
    assert not torch.allclose(states[0][:, -1], states[1][:, -1], atol=1e-2)
    if mode == "classifier_free":
        assert torch.equal(states[0][:, 0], states[1][:, 0]), "diffusers skips for the prompt alone"


def test_layers_that_are_not_there_cannot_be_skipped(model):
    most = 2 if model[0] is Sdxl else 3
    assert not equality.problems(*model, prompts=Prompts(clip_skip=most))
    found = equality.problems(*model, prompts=Prompts(clip_skip=most + 1))
    assert found == f"prompts.clip_skip: {most + 1} is more than the text encoders' layers allow; take at most {most}"


def test_a_second_prompt_is_that_of_diffusers(tiny_sdxl, tmp_path):
    family = equality.family(Sdxl, tiny_sdxl)
    pipeline = family.reference().pipeline
    files = {}
    for name, (_, text) in family.tokenizers().items():
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(text)
    entries = {name: entry for name, (entry, _) in family.tokenizers().items()}
    manifest = SimpleNamespace(guidance=family.guidance, tokenizers=entries)
    bundle = SimpleNamespace(manifest=manifest, path=lambda file: files[file.removeprefix("tokenizers/").removesuffix(".json")])
    fed, _ = Tokenizers(bundle).encode(PROMPTS, NEGATIVES, prompt_2=["the sea", ""], negative_prompt_2=["", "blue"])
    found = conditioning(family, fed)
    with torch.no_grad():
        # Where one is empty diffusers reads the first, which it tells of the whole list alone.
        second = {"prompt_2": ["the sea", PROMPTS[1]], "negative_prompt_2": [NEGATIVES[0], "blue"]}
        wanted = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=True, negative_prompt=NEGATIVES, **second)
    states = torch.cat([found["prompt_embeds"], found["prompt_embeds_2"]], -1)
    for branch, index in ((1, 0), (0, 1)):
        equality.close(states[:, branch], wanted[index])
        equality.close(found["pooled_prompt_embeds"][:, branch], wanted[index + 2])


#: Syntax → a text, its fragments and what they count, and the arithmetic.
WEIGHTED = {
    "a1111": (
        "a (red circle:1.3) on [the blue] sea",
        [("a", 1.0), ("red circle", 1.3), ("on", 1.0), ("the blue", 1 / 1.1), ("sea", 1.0)],
        A1111(),
    ),
    "compel": (
        "a (red circle)1.3 on the blue++ sea",
        [("a", 1.0), ("red circle", 1.3), ("on the", 1.0), ("blue", 1.21), ("sea", 1.0)],
        Compel(),
    ),
    "compel below 1": (
        "a (red circle)0.5 on the (blue-- sea)0.7",
        [("a", 1.0), ("red circle", 0.5), ("on the", 1.0), ("blue", 0.81 * 0.7), ("sea", 0.7)],
        Compel(),
    ),
    None: ("a red circle on the (blue:1.3) sea", [("a red circle on the (blue:1.3) sea", 1.0)], A1111()),
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("syntax", WEIGHTED)
@pytest.mark.parametrize("skip", [None, 1])
def test_chunks_and_weights_are_those_of_other_tools(model, count, syntax, skip):
    text, fragments, rule = WEIGHTED[syntax]
    family = equality.family(*model, prompts=Prompts(chunks=count, weights=syntax and syntax.split()[0], clip_skip=skip))
    reference = family.reference()
    more = "the square of an ant " * (12 * (count - 1))  # over 75 tokens a chunk, of pieces and bytes
    prompts, negatives = [f"{text} {more}".strip(), "a red circle"], NEGATIVES[0]
    fed = reference.tokenize(prompts, negatives)
    found = conditioning(family, fed)
    recorded = reference.encode(prompts, negatives)
    assert found.keys() == recorded.keys()
    for name, tensor in found.items():
        equality.close(tensor, torch.from_numpy(recorded[name]))
    if count > 1:
        assert (fed["tokenizer_ids"][0, 1] != fed["tokenizer_ids"][1, 1])[77 * 2 :].any(), "the last chunk is read"
    for (tower, name), port in zip(family.towers.items(), ("prompt_embeds", "prompt_embeds_2"), strict=False):
        encoder, tokenizer = getattr(reference.pipeline, tower), getattr(reference.pipeline, name)

        def encode(ids, layer, mask=None, encoder=encoder):
            with torch.no_grad():
                states = encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            if model[0] is Sdxl:
                return states[-2 - layer]
            return getattr(encoder, "text_model", encoder).final_layer_norm(states[-1 - layer])

        wanted = by_hand(tokenizer, lambda ids, mask=None: encode(ids, skip or 0, mask), [*fragments, (more, 1.0)], count, rule)
        equality.close(found[port][:1, 1], wanted.detach())
        wanted = by_hand(tokenizer, lambda ids, mask=None: encode(ids, 0, mask), [(NEGATIVES[0], 1.0)], count, rule)
        equality.close(found[port][:1, 0], wanted.detach())


def test_an_empty_negative_prompt_in_chunks_is_zeros(tiny_sdxl):
    family = equality.family(Sdxl, tiny_sdxl, prompts=Prompts(chunks=2, weights="compel"))
    reference = family.reference()
    found, recorded = conditioning(family, reference.tokenize(PROMPTS, None)), reference.encode(PROMPTS, None)
    for name, tensor in found.items():
        equality.close(tensor, torch.from_numpy(recorded[name]))
        assert not tensor[:, 0].any()


def test_by_default_prompts_are_literal_and_the_graph_knows_nothing_of_it(model):
    family = equality.family(*model)
    for tower, (entry, _) in zip(family.towers, family.tokenizers().values(), strict=True):
        assert (entry.chunks, entry.weights, entry.syntax, entry.length) == (1, None, None, 77)
        assert [port.name for port in family.signature(tower).inputs] == [entry.feeds]


class Plain(torch.nn.Module):
    """The text tower as it is wrapped where a recipe asks for nothing: what graphs were before there was anything to ask for."""

    def __init__(self, encoder, empty, *, penultimate, pooled):
        super().__init__()
        self.encoder, self.penultimate, self.pooled = encoder, penultimate, pooled
        self.register_buffer("empty", empty, persistent=False)

    def forward(self, ids):
        found = self.encoder(ids.flatten(0, 1), output_hidden_states=self.penultimate)
        states = [found.hidden_states[-2] if self.penultimate else found.last_hidden_state]
        states += [found.text_embeds] if self.pooled else []
        states = [self._kept(ids, state.float().reshape(ids.shape[0], ids.shape[1], *state.shape[1:])) for state in states]
        return tuple(states) if self.pooled else states[0]

    def _kept(self, ids, state):
        if self.empty is None:
            return state
        blank = (ids == self.empty).all(-1) & (torch.arange(ids.shape[1]) == 0)
        return state.masked_fill(blank.reshape(*blank.shape, *[1] * (state.ndim - 2)), 0.0)


@pytest.mark.long
def test_where_nothing_is_asked_graphs_are_the_same_to_the_byte(model, tmp_path):
    family = equality.family(*model)
    for tower in family.towers:
        files = []
        for number, wrapped in enumerate((False, True)):
            part = family.part(tower, "fp32")
            if wrapped:
                own = part.module
                part = replace(part, module=Plain(own.encoder, own.empty, penultimate=own.penultimate, pooled=own.pooled).eval())
            files.append(tmp_path / f"{number}-{tower}" / "graph.onnx")
            files[-1].parent.mkdir()
            save(export(part, 20, processor=True, fused=()), files[-1])
        assert files[0].read_bytes() == files[1].read_bytes()
