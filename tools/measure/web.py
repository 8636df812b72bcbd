"""The page of a bundle in a headless Chromium beside Python on this machine: size, load, seconds per picture, and how equal.

    python -m tools.measure.web bundles/demo bundles/demo-web
    python -m tools.measure.web bundles/demo --steps 10 --rounds 20 --onnxruntime-web onnxruntime-web-1.30.0.tgz

Python runs ONNX Runtime with one thread, as a page does without the headers that allow more, and with as many as it likes.
"""

from __future__ import annotations

import re
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import click
import numpy as np
from PIL import Image

from engines.bundle import Bundle
from engines.pipeline import Pipeline
from engines.web import site
from exporter.parity.metrics import psnr

PROMPT = "a small red circle left of a large blue square"
#: What a server sends for a page that shall have threads.
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 600_000
#: How often each is opened; the least counts, which a busy machine spoils least.
_OPENED = 3


class _Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, headers: dict[str, str], **options: Any) -> None:  # noqa: ANN401 - the library's
        self._own = headers
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        for name, value in self._own.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - the library's
        """Say nothing."""


@contextmanager
def served(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    """Address of a folder on this machine's loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, headers=headers, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Measured:
    """Seconds until it can draw, of each time that it was opened, and of each picture; and the pictures."""

    loads: list[float]
    times: list[float]
    pictures: list[np.ndarray]


def in_browser(browser: Any, address: str, steps: int, seeds: Sequence[int]) -> Measured:  # noqa: ANN401 - playwright's
    """Open the page anew a few times, with nothing in its cache, and draw in the last; the page itself says how long it drew."""
    loads, times, pictures = list[float](), list[float](), list[np.ndarray]()
    page: Any = browser.new_context().new_page()
    for _ in range(_OPENED):
        page.context.close()
        page = browser.new_context().new_page()
        page.set_default_timeout(_PATIENCE)
        start = time.perf_counter()
        page.goto(address)
        page.locator('#status:text-is("Ready."), #failure:visible').first.wait_for()
        loads.append(time.perf_counter() - start)
    page.fill("#prompt", PROMPT)
    page.select_option("#steps", str(steps))
    for seed in seeds:
        page.fill("#seed", str(seed))
        page.click("#draw")
        page.locator('#draw[aria-disabled="false"]').wait_for()
        if page.locator("#failure").is_visible():
            raise click.ClickException(page.text_content("#failure"))
        times.append(float(re.findall(r"[\d.]+", page.text_content("#status"))[0]))
        with page.expect_download() as waiting:
            page.click("#save")
        with Image.open(waiting.value.path()) as picture:
            pictures.append(np.asarray(picture))
    page.context.close()
    return Measured(loads, times, pictures)


def in_python(bundle: Path, threads: int, steps: int, seeds: Sequence[int]) -> Measured:
    """The same, by ONNX Runtime in this process."""
    loads, times, pictures = list[float](), list[float](), list[np.ndarray]()
    for _ in range(_OPENED):
        start = time.perf_counter()
        with Pipeline.open(bundle, "onnxruntime", threads=threads) as pipeline:
            loads.append(time.perf_counter() - start)
            for seed in seeds if len(loads) == _OPENED else ():
                start = time.perf_counter()
                pictures.append(np.asarray(pipeline.generate(PROMPT, seed=seed, steps=steps)[0]))
                times.append(time.perf_counter() - start)
    return Measured(loads, times, pictures)


@click.command(help=__doc__)
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--steps", type=int, help="Of the sampler.  [default: the bundle's]")
@click.option("--rounds", default=10, show_default=True, help="Pictures of each, after one that does not count.")
@click.option("--device", default="wasm", show_default=True, help="wasm, or webgpu.")
@click.option("--onnxruntime-web", "library", type=click.Path(path_type=Path), help="As of `t2iexport web`.")
def main(bundles: tuple[Path, ...], steps: int | None, rounds: int, device: str, library: Path | None) -> None:
    """Print a line for each bundle and way to run it."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        raise click.ClickException("there is no Chromium. Install it: apt install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - whoever reads --help may not have it

    columns = [f"{name:>8}" for name in ("load", "first", "median", "least")]
    click.echo(f"{'':<26} {' '.join(columns)}   PSNR")
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for bundle in bundles:
            size = site.write(bundle, Path(folder) / bundle.name, library)
            seeds = range(rounds + 1)
            chosen = steps or Bundle.open(bundle).manifest.defaults.steps
            reference = in_python(bundle, 1, chosen, seeds)
            rows = {"Python, 1 thread": reference, "Python, threads": in_python(bundle, 0, chosen, seeds)}
            for name, headers in (("1 thread", {}), ("threads", ISOLATED)):
                with served(Path(folder) / bundle.name, headers) as address:
                    rows[f"Chromium, {device}, {name}"] = in_browser(browser, f"{address}#device={device}", chosen, seeds)
            click.echo(f"{bundle.name}: {chosen} steps; the site is {size / 1e6:.1f} MB")
            for name, row in rows.items():
                worst = min(psnr(one, other, 255.0) for one, other in zip(row.pictures, reference.pictures, strict=True))
                rest = row.times[1:]
                seconds = [min(row.loads), row.times[0], statistics.median(rest), min(rest)]
                click.echo(f"  {name:<24} {' '.join(f'{each:>6.2f} s' for each in seconds)}   {worst:.1f} dB")
        browser.close()


if __name__ == "__main__":
    main()
