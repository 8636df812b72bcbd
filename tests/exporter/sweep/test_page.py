"""The report in a real Chromium: it filters, sorts, shows a point's pictures, fits a phone, and asks nobody for anything."""

import json

import pytest

from exporter.sweep import page, report
from tests.exporter.sweep import made

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    asked, swept = made.swept(folder)
    report.write(asked, swept, folder)
    return folder / "index.html"


@pytest.fixture
def visit(browser, written):
    pages = []

    def go(**context):
        opened = browser.new_context(**context).new_page()
        opened.set_default_timeout(15_000)
        requests, wrong = [], []
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda line: wrong.append(line.text))
        pages.append((opened, requests, wrong))
        opened.goto(written.as_uri())
        opened.wait_for_selector("#points tbody tr")
        return opened

    yield go
    for opened, requests, wrong in pages:
        assert all(url.startswith(("file:", "data:")) for url in requests)
        assert requests
        assert not wrong
        opened.context.close()


def names(opened):
    return opened.locator("#points tbody tr td:first-child").all_inner_texts()


def test_it_shows_every_point_and_says_which_to_take(visit):
    opened = visit()
    assert opened.title() == "mine"
    assert len(names(opened)) == 36
    assert opened.inner_text("#count") == "36 of 36 points"
    answers = opened.locator("#answers p").all_inner_texts()
    assert answers[0].startswith("Within latency < 100 ms: steps 8 is best by PSNR, 38.75")
    assert answers[2] == "Within latency < 1 ms: no point keeps it."
    assert opened.locator("#plot circle[data-point]").count() == 23  # 24 were measured, of which the base has no score
    assert opened.locator("#plot circle.ring").count() == 2
    assert "12 × " in opened.inner_text("#failures summary")


def test_a_filter_leaves_out_levels(visit):
    opened = visit()
    opened.locator(".chip", has_text="DDIMScheduler").click()
    assert opened.inner_text("#count") == "18 of 36 points"
    assert not [name for name in names(opened) if "DDIM" in name]
    assert opened.locator("#plot circle[data-point]").count() == 11
    assert opened.locator("#sheet tbody tr").count() == 12
    for level in ("EulerDiscreteScheduler", "fp8"):
        opened.locator(".chip", has_text=level).click()
    assert names(opened) == []
    assert "no point has both" in opened.inner_text("#plot")
    opened.click("#everything")
    assert len(names(opened)) == 36


def test_a_click_on_a_head_sorts_and_another_turns_round(visit):
    opened = visit()
    content = json.loads(opened.inner_text("#data") or opened.evaluate("document.getElementById('data').textContent"))
    latency = {point["name"]: point["values"]["latency"] for point in content["points"]}
    opened.locator("#points thead button", has_text="latency").click()
    order = [latency[name.removeprefix("◆ ")] for name in names(opened)]
    known = [value for value in order if value is not None]
    assert known == sorted(known)
    assert order[24:] == [None] * 12  # what failed stands last, either way
    assert opened.locator("#points th[aria-sort=ascending]").inner_text().startswith("latency")
    opened.locator("#points thead button", has_text="latency").click()
    order = [latency[name.removeprefix("◆ ")] for name in names(opened)]
    assert order[:24] == known[::-1]
    assert order[24:] == [None] * 12


def test_a_click_on_a_point_shows_its_figures_pictures_way_and_recipe(visit):
    opened = visit()
    opened.locator("#plot circle[aria-label='<half> · DDIMScheduler · steps 4 · bf16']").click()
    details = opened.inner_text("#details")
    assert "<half> · DDIMScheduler · steps 4 · bf16" in details
    assert "32.5 (95%: 31.5 to 33.5)" in details
    assert opened.locator("#details .pair img").count() == 4
    assert opened.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth === 16)")
    assert opened.locator("#details ol.path li").count() == 4
    assert "t2iexport build" in details
    assert "--steps 4" in details
    assert '"precision": "bf16"' in details
    opened.locator("#details .pair input").first.fill("20")
    assert opened.locator("#details .pair").first.evaluate("(pair) => getComputedStyle(pair).getPropertyValue('--cut')") == "20%"
    opened.locator("#details button", has_text="copy").first.click()
    assert opened.evaluate("getSelection().toString()").startswith("t2iexport build")
    assert opened.locator("#points tr.selected").count() == 1
    opened.locator("#points tbody tr", has_text="fp8").first.press("Enter")
    assert "must be 'fp32', 'fp16'" in opened.inner_text("#details pre")


def test_other_quantities_are_drawn_too(visit):
    opened = visit()
    opened.select_option("#across", "size")
    opened.select_option("#up", "speedup")
    opened.select_option("#colour", "run.steps")
    opened.uncheck("#logarithmic")
    assert "bundle" in opened.inner_text("#plot")
    assert opened.locator("#plot circle[data-point]").count() == 24
    assert opened.inner_text("#legend").split() == ["25", "8", "4"]
    opened.locator("#plot circle.selected").hover()
    assert "times as fast as the base" in opened.inner_text("#tip")


def test_effects_are_listed_with_what_is_sure(visit):
    opened = visit()
    rows = [row.split("\t") for row in opened.locator("#effects tbody tr").all_inner_texts()]
    assert ["network", "<half>", "whole", "PSNR", "-3 (-3 to -3)", "11", "worse"] in rows
    assert ["network", "<half>", "whole", "latency", "× 0.5 (× 0.5 to × 0.5)", "12", "better"] in rows
    assert ["precision", "bf16", "fp32", "latency", "× 0.9 (× 0.9 to × 0.9)", "12", "better"] in rows


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(visit, scheme):
    opened = visit(**PHONE, color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.locator("#points tbody tr").nth(3).tap()
    assert opened.locator("#details .pair img").count() == 4
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(20, 24, 29)") == (scheme == "dark")


def test_nothing_in_the_data_ends_the_program(tmp_path):
    asked, swept = made.swept(tmp_path)
    found = report.content(asked, swept) | {"name": "%%data%%</script><script>alert(1)</script>"}
    text = page.html(found, tmp_path / "pictures")
    assert text.count("</script>") == 2
    assert "<title>%%data%%&lt;/script&gt;" in text
