"""The page in a real Chromium: it draws what Python draws, says what is wrong, and speaks to nobody but its own server."""

import re

import numpy as np
import pytest
from PIL import Image

from engines.bundle import draft, write
from engines.images.provenance import ImageProvenance
from engines.manifest import SamplerEntry
from engines.pipeline import Pipeline
from engines.samplers.table import Draw, Emit, Eval, Table
from tests.engines import small
from tests.engines.web import sites

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

READY = '#status:text-is("Ready.")'
FAILED = "#failure:visible"
PROMPT = "a red circle, left of the sea"


@pytest.fixture(scope="module")
def graphs():
    from tests.engines import test_real_engines

    return test_real_engines.graphs()


@pytest.fixture(scope="module")
def stepped(graphs, library, tmp_path_factory):
    """A bundle that is played step by step, of any size, and its site."""
    folder = tmp_path_factory.mktemp("stepped")
    samplers = (*small.draft().samplers, SamplerEntry(steps=400, file="samplers/400.json"))
    bundle = sites.clip(folder / "bundle", graphs, samplers=samplers)
    return bundle, sites.written(bundle, folder / "site", library)


@pytest.fixture(scope="module")
def fused(library, tmp_path_factory):
    """A bundle that is one graph, with several draws of noise, and its site."""
    folder = tmp_path_factory.mktemp("fused")
    bundle = sites.clip(folder / "bundle", {"pipeline_2": whole()}, **small.fused())
    return bundle, sites.written(bundle, folder / "site", library)


def whole():
    """A graph that shows its noise, moved by its words and its guidance."""
    from tests.engines.test_real_engines import NEAREST, graph

    nodes = [
        ("Cast", "tokenizer_ids", "numbers", {"to": onnx.TensorProto.FLOAT}),
        ("ReduceMean", "numbers axes", "mean", {"keepdims": 0}),
        ("Mul", "mean guidance_scale", "steered", {}),
        ("Div", "steered thousand", "said", {}),
        ("ReduceSum", "noise one", "latent", {"keepdims": 0}),
        ("Transpose", "latent", "last", {"perm": [0, 2, 3, 1]}),
        ("Slice", "last zero three channel", "rgb", {}),
        ("Resize", "rgb  scales", "big", NEAREST),
        ("Add", "big said", "moved", {}),
        ("Div", "moved four", "quarter", {}),
        ("Add", "quarter half", "grey", {}),
        ("Clip", "grey black white", "image", {}),
    ]
    places = {"axes": [1, 2], "one": [1], "zero": [0], "three": [3], "channel": [3]}
    numbers = {"thousand": 1000, "four": 4, "half": 0.5, "black": 0, "white": 1, "scales": [1, small.FACTOR, small.FACTOR, 1]}
    constants = {name: np.array(value, np.int64) for name, value in places.items()}
    constants |= {name: np.array(value, np.float32) for name, value in numbers.items()}
    return graph(small.draft(**small.fused()).parts["pipeline_2"], nodes, **constants)


def drawn(page, tmp_path, **fields):
    """Fill the fields, draw, and save the picture as a visitor does."""
    for name, value in fields.items():
        field = page.locator(f"#{name}")
        field.select_option(str(value)) if field.evaluate("field => field.localName") == "select" else field.fill(str(value))
    page.click("#draw")
    page.locator(f'#status:text-matches("^Drawn in"), {FAILED}').first.wait_for()
    assert page.locator("#failure").is_hidden(), page.text_content("#failure")
    with page.expect_download() as waiting:
        page.click("#save")
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def test_step_by_step_it_draws_what_python_draws(stepped, serve, visit, tmp_path):
    bundle, folder = stepped
    page = visit(serve(folder))
    page.wait_for_selector(READY)
    fields = {"negative_prompt": "sea", "seed": 2**64 - 1, "steps": 4, "guidance_scale": 3.5, "width": 32, "height": 64}
    file = drawn(page, tmp_path, prompt=PROMPT, **fields)
    with Pipeline.open(bundle.folder, threads=1) as pipeline:
        wishes = ImageProvenance.read(file).wishes(bundle.manifest)
        assert {name: wishes[name] for name in fields} == fields
        (expected,) = pipeline.generate(**wishes)
    with Image.open(file) as ours:
        assert ours.size == (32, 64)
        assert sites.psnr(ours, expected) >= 60
        assert {**ours.text, "engine": pipeline.engine, "evaluations": "4"} == expected.info
        assert re.fullmatch(r"onnxruntime-web [\d.]+ wasm", ours.text["engine"])


def cached():
    """Graphs of a denoiser that leaves a deep feature, for any number of branches, and of its outermost layers."""
    from tests.engines.test_real_engines import graph

    parts = small.caching()["parts"]
    steered = [
        ("Gather", "embeds zero", "negative", {"axis": 1}),
        ("Gather", "embeds last", "positive", {"axis": 1}),
        ("Sub", "positive negative", "difference", {}),
        ("Unsqueeze", "guidance_scale axes", "scale", {}),
        ("Mul", "difference scale", "much", {}),
        ("Add", "negative much", "steer", {}),
        ("Unsqueeze", "timestep axes", "time4", {}),
        ("Div", "time4 thousand", "time", {}),
        ("Add", "latent steer", "moved", {}),
        ("Add", "moved time", "late", {}),
        ("Tanh", "late", "model_output", {}),
    ]
    places = {"axes": [1, 2, 3], "ends": [3, 4], "after": [1], "front": [0], "three": [3], "channel": [1]}
    numbers = {name: np.array(value, np.int64) for name, value in places.items()}
    numbers |= {"zero": np.int64(0), "last": np.int64(-1), "thousand": np.float32(1000)}
    deep = [
        ("Div", "prompt_embeds thousand", "small", {}),  # ids of CLIP are large
        ("Unsqueeze", "small ends", "wide", {}),
        ("Slice", "latent front three channel", "some", {}),
        ("Unsqueeze", "some after", "each", {}),
        ("Mul", "wide each", "deep_feature", {}),
    ]
    taken = [("ReduceMean", "deep_feature two", "embeds3", {"keepdims": 0}), ("Unsqueeze", "embeds3 two", "embeds", {})]
    numbers["two"] = np.array([2], np.int64)
    nodes = {"unet": [*deep, *taken, *steered], "unet_shallow": [*taken, *steered]}
    return {name: graph(parts[name], each, **numbers) for name, each in nodes.items()}


@pytest.fixture(scope="module")
def reusing(graphs, library, tmp_path_factory):
    """A bundle whose sampler has shallow steps, and steps of which a part of the guidance counts, and its site."""
    folder = tmp_path_factory.mktemp("reusing")
    bundle = sites.clip(folder / "bundle", {**graphs, **cached()}, **small.caching())
    row = (0.4, 0.3, 0.2, 0.1, 0.2, 0.3)
    asked = [{}, {"guided": 0.5, "shallow": True}, {"guided": 0.0}, {"guided": 0.0, "shallow": True}, {}]
    evals = [Eval(t=900 - 150 * step, row=row[: step + 1], **each) for step, each in enumerate(asked)]
    Table(format=3, provenance=small.table().provenance, ops=(Draw(), *evals, Emit(row=row))).dump(
        bundle.folder / "samplers/2.json"
    )
    bundle = write(bundle.folder, draft(bundle.manifest))
    return bundle, sites.written(bundle, folder / "site", library)


def test_shallow_steps_and_shares_of_guidance_are_python_s(reusing, serve, visit, tmp_path):
    bundle, folder = reusing
    file = drawn(visit(serve(folder)), tmp_path, prompt=PROMPT, negative_prompt="sea", seed=5, guidance_scale=200, steps=2)
    with Pipeline.open(bundle.folder, threads=1) as pipeline, Image.open(file) as ours:
        asked = {"negative_prompt": "sea", "seed": 5, "guidance_scale": 200, "steps": 2}
        (expected,) = pipeline.generate(PROMPT, **asked)
        assert sites.psnr(ours, expected) >= 60
        small.table(2).dump(bundle.folder / "samplers/2.json")
    with Pipeline.open(write(bundle.folder, draft(bundle.manifest)).folder, threads=1) as pipeline:
        assert sites.psnr(pipeline.generate(PROMPT, **asked)[0], expected) < 40, "what is asked for shows"


def test_noise_of_every_step_is_python_s(stepped, serve, visit, tmp_path):
    bundle, folder = stepped
    page = visit(serve(folder))
    file = drawn(page, tmp_path, prompt="", seed=11, steps=400)
    with Pipeline.open(bundle.folder, threads=1) as pipeline, Image.open(file) as ours:
        assert sites.psnr(ours, pipeline.generate("", seed=11, steps=400)[0]) >= 60


def test_as_one_graph_it_draws_what_python_draws(fused, serve, visit, tmp_path):
    bundle, folder = fused
    page = visit(serve(folder))
    files = [drawn(page, tmp_path, prompt=PROMPT, seed=seed) for seed in (5, 6)]
    with Pipeline.open(bundle.folder, threads=1) as pipeline:
        for file, seed in zip(files, (5, 6), strict=True):
            with Image.open(file) as ours:
                assert sites.psnr(ours, pipeline.generate(PROMPT, seed=seed)[0]) >= 60


def test_without_its_server_it_draws_on(stepped, serve, visit, tmp_path):
    served = serve(stepped[1])
    page = visit(served)
    page.wait_for_selector(READY)
    served.stop()
    before = len(served.asked)
    assert drawn(page, tmp_path, prompt=PROMPT).stat().st_size > 100
    assert len(served.asked) == before


def test_threads_where_the_headers_allow_them(stepped, serve, visit, tmp_path):
    headers = {"Cross_Origin_Opener_Policy": "same-origin", "Cross_Origin_Embedder_Policy": "require-corp"}
    page = visit(serve(stepped[1], **headers))
    page.wait_for_selector(READY)
    cores = page.evaluate("navigator.hardwareConcurrency")
    assert f"WebAssembly, {cores} thread" in page.text_content("#about")
    assert drawn(page, tmp_path, prompt=PROMPT).exists()


#: Whoever looks from outside may see nothing between the first step and the last.
ESCAPE_AT_A_STEP = """() => {
  const status = document.getElementById("status");
  new MutationObserver((_, observer) => {
    if (!status.textContent.startsWith("Step")) return;
    observer.disconnect();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  }).observe(status, { childList: true, characterData: true, subtree: true });
}"""


def test_it_stops_between_steps_and_draws_again(stepped, serve, visit, tmp_path):
    page = visit(serve(stepped[1]))
    page.wait_for_selector(READY)
    page.select_option("#steps", "400")
    page.evaluate(ESCAPE_AT_A_STEP)
    page.focus("#prompt")
    page.keyboard.type("a red")
    page.keyboard.press("Enter")
    page.locator('#status:text-is("Stopped.")').wait_for()
    assert page.locator("#picture").is_hidden()
    assert drawn(page, tmp_path, steps=2).exists()


def test_stopped_while_it_loads_it_loads_again(fused, serve, visit, tmp_path):
    page = visit(serve(fused[1]), "none.html")
    page.context.route("**/*.wasm", lambda _: None)  # never answered
    page.goto(page.url.replace("none.html", ""))
    page.click("#draw")
    page.click("#stop")
    page.locator('#status:text-is("Stopped.")').wait_for()
    page.context.unroute("**/*.wasm")
    assert drawn(page, tmp_path, prompt=PROMPT).exists()


def test_asked_before_it_knows_its_model_it_draws_then(stepped, serve, visit):
    page, held = visit(serve(stepped[1]), "none.html"), []
    page.context.route("**/model.json", lambda route, _: held.append(route), times=1)
    with page.expect_request("**/model.json"):
        page.goto(page.url.replace("none.html", ""))
    page.fill("#prompt", PROMPT)
    page.click("#draw")
    assert page.locator("#stop").is_hidden()
    held.pop().continue_()
    page.locator('#status:text-matches("^Drawn in")').wait_for()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"seed": "-1"}, "“-1” is no seed. Use a whole number from 0 to 18446744073709551615."),
        ({"seed": 2**64}, "“18446744073709551616” is no seed."),
        ({"guidance_scale": "much"}, "“much” is no guidance. Use a number such as 7.5"),
        ({"guidance_scale": ""}, "“” is no guidance."),
    ],
)
def test_a_wish_that_cannot_be_is_told(stepped, serve, visit, fields, says):
    page = visit(serve(stepped[1]))
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.click("#draw")
    assert says in page.locator(FAILED).text_content()
    assert page.get_attribute("#draw", "aria-disabled") == "false"


def test_a_size_without_a_sampler_is_told(stepped, serve, visit):
    page = visit(serve(stepped[1]), "#steps=4&width=32&height=32")
    page.click("#draw")
    assert "There is no sampler of 4 steps for 32 × 32 pixels." in page.locator(FAILED).text_content()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, b"", "unet.onnx is not on the server (HTTP 404). Copy the whole folder to the server again"),
        (200, b"cut", "unet.onnx has 3 bytes on the server instead of"),
        (200, b"long" * 9999, "unet.onnx has more than"),
    ],
)
def test_a_file_that_is_missing_or_another_is_told(stepped, serve, visit, status, body, says):
    page = visit(serve(stepped[1]), "none.html")
    page.context.route("**/unet.onnx", lambda route: route.fulfill(status=status, body=body))
    page.goto(page.url.replace("none.html", ""))
    assert says in page.locator(FAILED).text_content()


def test_a_graph_that_does_not_open_is_told(stepped, serve, visit):
    page = visit(serve(stepped[1]), "none.html")
    size = (stepped[1] / "onnx/20/unet.onnx").stat().st_size
    page.context.route("**/unet.onnx", lambda route: route.fulfill(status=200, body=b"x" * size))
    page.goto(page.url.replace("none.html", ""))
    assert "unet could not be opened here: " in page.locator(FAILED).text_content()


def test_what_is_not_read_of_a_prompt_is_told(stepped, serve, visit, tmp_path):
    page = visit(serve(stepped[1]))
    drawn(page, tmp_path, prompt="a red circle on the sea and a ship")
    assert "The prompt is too long; the model does not read its end: “the sea and a ship”" in page.text_content("#note")


def test_its_address_holds_the_wish_where_no_server_sees_it(stepped, serve, visit, tmp_path):
    served = serve(stepped[1])
    page = visit(served)
    first = drawn(page, tmp_path, prompt="a & b", negative_prompt="sea", seed=9, steps=4, width=32, height=64).read_bytes()
    page.reload()
    assert page.input_value("#prompt") == "a & b"
    assert drawn(page, tmp_path).read_bytes() == first
    assert not [path for path in served.asked if "sea" in path or "seed" in path]


def test_a_graphics_card_that_cannot_gives_way_to_the_processor(stepped, serve, visit, tmp_path):
    page = visit(serve(stepped[1]), "none.html")
    pretended = "Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => ({}) } });"
    script = (stepped[1] / "worker.js").read_text(encoding="utf-8")
    javascript = {"content_type": "text/javascript", "body": f"{script}\n{pretended}"}
    page.context.route("**/worker.js", lambda route: route.fulfill(**javascript))
    page.goto(page.url.replace("none.html", ""))
    page.wait_for_selector(READY)
    assert "The graphics card cannot run this model, so the processor does: " in page.text_content("#note")
    assert "WebAssembly" in page.text_content("#about")
    assert drawn(page, tmp_path, prompt=PROMPT).exists()


def detailed(unet):
    """The denoiser's graph with one more input, whose sum is added to its output."""
    model = onnx.load_from_string(unet)
    graph, helper = model.graph, onnx.helper
    graph.input.append(helper.make_tensor_value_info("detail", onnx.TensorProto.FLOAT, ["batch", "rank"]))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "ranks"))
    graph.node[-1].output[0] = "plain"
    graph.node.append(helper.make_node("ReduceSum", ["detail", "ranks"], ["sum"], keepdims=0))
    graph.node.append(helper.make_node("Unsqueeze", ["sum", "axes"], ["sums"]))
    graph.node.append(helper.make_node("Add", ["plain", "sums"], ["model_output"]))
    return model.SerializeToString()


def test_what_rests_at_zero_is_fed_zeros(graphs, library, serve, visit, tmp_path):
    bundle = sites.clip(tmp_path / "bundle", {**graphs, "unet": detailed(graphs["unet"])}, **sites.resting())
    page = visit(serve(sites.written(bundle, tmp_path / "site", library)))
    with Pipeline.open(bundle.folder, threads=1) as pipeline, Image.open(drawn(page, tmp_path, prompt=PROMPT, seed=3)) as ours:
        assert sites.psnr(ours, pipeline.generate(PROMPT, seed=3)[0]) >= 60


def test_a_device_that_there_is_not_is_told(stepped, serve, visit):
    page = visit(serve(stepped[1]), "#device=abacus")
    assert "There is no device abacus." in page.locator(FAILED).text_content()


def test_it_fits_every_screen_in_either_light(stepped, serve, visit):
    page = visit(serve(stepped[1]))
    page.wait_for_selector(READY)
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ground, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
        assert contrast(ground, ink) >= 7
        grounds.add(ground)
        for width in (320, 768, 1280):
            page.set_viewport_size({"width": width, "height": 700})
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert len(grounds) == 2


def contrast(*colours):
    """Ratio of two colours' luminance, as WCAG 2 has it."""
    linear = [[(part / 255) ** 2.2 for part in map(int, re.findall(r"\d+", colour)[:3])] for colour in colours]
    low, high = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in linear)
    return (high + 0.05) / (low + 0.05)
