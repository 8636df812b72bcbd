"""The page in a real Chromium: it draws, cancels, shows errors, and speaks to nobody but its own server."""

import base64
import io
import json
import shlex
import threading
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from engines.__main__ import generate
from tests.engines.serve.live import file_of, opened

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def visit(browser):
    """Open a server's page; at the end nothing may have gone wrong in it, nor a request have gone elsewhere."""
    pages = []

    def go(live, **context):
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(15_000)
        requests, wrong = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(f"{line.type}: {line.text}"))
        pages.append((page, live, requests, wrong))
        page.goto(f"{live.url}/")
        wait(page, "document.querySelector('#steps').options.length > 0 || !document.querySelector('#failure').hidden")
        return page

    yield go
    for page, live, requests, wrong in pages:
        assert requests
        assert all(url.startswith((live.url, "data:", f"blob:{live.url}")) for url in requests)
        assert not [line for line in wrong if "Failed to load resource" not in line]  # a status that a test asks for
        page.context.close()


def wait(page, expression, seconds=15):
    """Until an expression holds; asked from outside, since the page's own policy lets nobody make code of text."""
    until = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < until, f"{expression}\n{page.inner_text('body')}"
        page.wait_for_timeout(20)


def shown(page):
    """The picture that the page shows."""
    source = page.locator("#frame img").get_attribute("src")
    return opened(source.partition(",")[2])


def finished(page, count=1):
    wait(page, f"document.querySelectorAll('#history button').length === {count} && !document.querySelector('#draw').disabled")


def same(image, other):
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(other))


def test_it_draws_what_the_pipeline_draws_and_says_how(server, visit, alone):
    page = visit(server())
    assert page.title() == "Draw with small"
    page.fill("#prompt", "a red square")
    page.fill("#negative_prompt", "the sea")
    page.fill("#seed", "12")
    page.fill("#guidance_scale", "3.5")
    page.fill("#width", "48")
    page.keyboard.press("Control+Enter")
    finished(page)
    asked = {"prompts": "a red square", "negative_prompt": "the sea", "seed": 12, "guidance_scale": 3.5, "width": 48}
    same(shown(page), alone(**asked)[0])
    assert "seed 12" in page.inner_text("#status")
    page.click("summary")
    command = page.inner_text("#command")
    assert command.startswith(
        "t2iexport generate small 'a red square' -o out.png --negative-prompt 'the sea' --seed 12 --steps 2"
    )
    assert '"seed": 12' in page.inner_text("#json")


def test_the_command_and_the_request_make_the_picture_again(server, visit):
    live = server()
    page = visit(live)
    page.fill("#prompt", "it's a 'blue' circle")
    page.click("#draw")
    finished(page)
    page.click("summary")
    body = json.loads(page.inner_text("#json"))
    told = live.post("/v1/images/generations", body)[2]
    same(opened(told["data"][0]["b64_json"]), shown(page).convert("RGB"))
    words = shlex.split(page.inner_text("#command"))
    assert words[:2] == ["t2iexport", "generate"]
    params = generate.make_context("generate", words[2:]).params
    assert (params["prompts"], params["seed"], params["steps"]) == ((body["prompt"],), (body["seed"],), 2)


def test_previews_come_while_it_draws_and_escape_cancels(server, visit):
    go, calls = threading.Event(), []

    def slow(part):
        if part == "unet":
            calls.append(part)
            if len(calls) > 1:
                go.wait(20)

    live = server(slow=slow)
    page = visit(live)
    page.select_option("#model", "editor")
    page.set_input_files(
        "#image", {"name": "a.png", "mimeType": "image/png", "buffer": file_of(Image.new("RGB", (64, 32), "red"))}
    )
    page.fill("#strength", "1")
    page.click("#draw")
    page.wait_for_selector("#frame img")
    assert page.inner_text("#status") == "step 1 of 2"
    assert shown(page).size == (64, 32)
    assert page.locator("#cancel").is_visible()
    page.keyboard.press("Escape")
    wait(page, "document.querySelector('#status').textContent === 'cancelled'")
    until = time.monotonic() + 10
    while not all(job.cancelled for job in live.application.dispatcher.drawing) and time.monotonic() < until:
        time.sleep(0.01)
    go.set()
    assert live.quiet()
    assert not page.locator("#cancel").is_visible()
    assert not page.locator("#draw").is_disabled()


def test_a_picture_and_a_painted_mask_change_what_is_painted_alone(server, visit):
    page = visit(server())
    page.select_option("#model", "editor")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    page.set_input_files("#image", {"name": "a.png", "mimeType": "image/png", "buffer": file_of(image)})
    page.fill("#brush", "60")
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.9, steps=5)
    page.mouse.up()
    page.fill("#prompt", "sea")
    page.click("#draw")
    finished(page)
    made, before = np.asarray(shown(page).convert("RGB")), np.asarray(image)
    np.testing.assert_array_equal(made[:, 40:], before[:, 40:])
    assert (made[:, 10:20] != before[:, 10:20]).any()
    page.click("summary")
    assert "--image image.png --mask mask.png" in page.inner_text("#command")
    page.click("#clear")
    page.click("#draw")
    finished(page, 2)
    assert (np.asarray(shown(page).convert("RGB"))[:, 40:] != before[:, 40:]).any()


def test_what_goes_wrong_is_told_in_the_servers_words(server, visit):
    live = server(max_pixels=16 * 16)
    page = visit(live)
    page.fill("#prompt", "sea")
    page.click("#draw")
    page.wait_for_selector("#failure:visible")
    assert page.inner_text("#failure") == "32x32 are more than the 256 pixels that are allowed."
    assert not page.locator("#draw").is_disabled()
    page.fill("#seed", "-4")
    page.click("#draw")
    wait(page, "document.querySelector('#failure').textContent.startsWith('seed -4')")
    page.select_option("#model", "editor")
    page.set_input_files("#image", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    wait(page, "document.querySelector('#failure').textContent.startsWith('this file is no picture')")


def test_a_key_is_asked_for_and_kept_for_the_visit(server, visit):
    page = visit(server(keys=("secret",)))
    page.wait_for_selector("#key_dialog[open]")
    page.fill("#key", "wrong")
    page.click("#key_dialog button")
    page.wait_for_selector("#key_dialog[open]")
    page.fill("#key", "secret")
    page.click("#key_dialog button")
    wait(page, "document.querySelector('#steps').options.length > 0")
    page.click("#draw")
    finished(page)
    assert not page.locator("#failure").is_visible()


def test_history_is_walked_by_key_and_settings_come_back(server, visit):
    page = visit(server())
    for index, prompt in enumerate(("a red square", "the sea"), 1):
        page.fill("#prompt", prompt)
        page.fill("#seed", str(index))
        page.click("#draw")
        finished(page, index)
    latest = page.locator("#frame img").get_attribute("src")
    page.locator("#history button").last.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#frame img").get_attribute("src") != latest
    assert page.locator("#frame img").get_attribute("alt") == "a red square"
    page.click("#reuse")
    assert (page.input_value("#prompt"), page.input_value("#seed")) == ("a red square", "1")


def test_several_pictures_of_one_prompt_count_on(server, visit, alone):
    page = visit(server())
    page.fill("#seed", "5")
    page.fill("#n", "3")
    page.fill("#prompt", "sea")
    page.click("#draw")
    finished(page, 3)
    pictures = [opened(each.get_attribute("src").partition(",")[2]) for each in page.locator("#history img").all()]
    wanted = alone(prompts="sea", seed=5, images_per_prompt=3)
    for image in wanted:
        assert sum(np.array_equal(np.asarray(image), np.asarray(made.convert("RGB"))) for made in pictures) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(server, visit, scheme):
    page = visit(server(), color_scheme=scheme, **PHONE)
    page.fill("#prompt", "sea")
    page.click("#draw")
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    right = "Math.max(...[...document.querySelectorAll('#wish *')].map((each) => each.getBoundingClientRect().right))"
    assert page.evaluate(f"{right} < document.querySelector('#wish').getBoundingClientRect().right")
    assert page.evaluate("scrollY > 0 && document.querySelector('#frame img').getBoundingClientRect().top < innerHeight * 0.6")
    ground, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    light, dark = (sum(int(part) for part in color[4:-1].split(",")) for color in (ground, ink))
    assert (light > dark) == (scheme == "light")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground


def test_every_control_has_a_name(server, visit):
    page = visit(server())
    page.select_option("#model", "editor")
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea')].filter((each) => each.checkVisibility()
        && !each.labels?.length && !each.getAttribute('aria-label') && !each.textContent.trim()).map((each) => each.id)"""
    )
    assert nameless == []


def test_the_first_preview_comes_at_once(server, visit):
    """With networks that take no time: what the page and the server add."""
    page = visit(server())
    start = time.perf_counter()
    page.click("#draw")
    page.wait_for_selector("#frame img")
    assert time.perf_counter() - start < 5  # a second on a machine that does nothing else: tools.measure.serve


def test_saved_files_are_the_servers(server, visit):
    page = visit(server())
    page.fill("#seed", "8")
    page.click("#draw")
    finished(page)
    with page.expect_download() as waiting:
        page.click("#save")
    assert waiting.value.suggested_filename == "small-8.png"
    saved = io.BytesIO(waiting.value.path().read_bytes())
    assert Image.open(saved).text["seed"] == "8"
    assert base64.b64decode(page.locator("#frame img").get_attribute("src").partition(",")[2]) == saved.getvalue()
