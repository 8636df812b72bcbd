"""Measures `t2iexport serve`: what HTTP adds to a picture, clients side by side, faults, and memory under load.

    python -m tools.measure.serve bundles/demo --steps 10
    python -m tools.measure.serve bundles/demo --steps 10 --only soak --seconds 3600

The server is a process of its own, started by the command that users type; requests are the plainest, over connections that stay
open. ``overhead`` draws over HTTP and with ``Pipeline.generate`` in this process, in turns of seven, and compares the files, and
what is left of a picture's time beside the networks.
``clients`` has 8 clients beside one, with continuous and with fixed batching, in rounds that take turns: all with the same
steps, and half with the bundle's other steps. ``seeds`` holds pictures of full batches to the same seeds alone. ``page`` opens
the page in Chromium. ``faults`` are clients that vanish, malformed bodies, slow readers, and SIGTERM in the middle. ``soak`` is
load at the limit for as long as is asked, and its memory.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import shutil
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from PIL import Image

from engines.images import png
from engines.pipeline import Pipeline
from engines.sessions import Network, Wrap
from tools.measure.server_process import AT, PROMPT, Server, ask, serving

SECTIONS = ("overhead", "clients", "seeds", "page", "faults", "soak")
#: Pictures of one way of `overhead`, before the other's turn.
_BLOCK = 7
#: How often memory is looked at.
_SAMPLES = 40
#: Bodies that no client should send.
MALFORMED = (
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"prompt": 7}',
    b'{"n": -1}',
    b'{"size": "1x"}',
    b'{"a": 1}',
    b'{"prompt": "\\ud800"}',
    b'{"num_inference_steps": 1000000}',
    b"[" * 5000,
    b'{"seed": 1e400}',
)


def _timed(calls: list[float]) -> Wrap:
    """What notes the seconds of every call of a network."""

    def wrap(_part: str, _backend: str, network: Network) -> Network:
        def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            start = time.perf_counter()
            outputs = network(inputs)
            calls.append(time.perf_counter() - start)
            return outputs

        return call

    return wrap


def overhead(bundle: Path, steps: int, rounds: int) -> dict[str, Any]:
    """What HTTP adds to a client that asks for one picture after the other: medians of blocks, the two ways taking turns.

    Two processes run the same networks at speeds that differ by a few percent, which is more than HTTP takes. So the time in
    networks, which both sides know, is taken off each picture's, and what is left is compared.
    """
    calls = list[float]()
    with serving(bundle) as server, Pipeline.open(bundle, wrap=_timed(calls)) as pipeline, server.connect() as connection:

        def over_http(seed: int) -> bytes:
            status, data = ask(connection, seed, steps)
            if status != 200:
                raise click.ClickException(f"status {status}: {data!r}")
            return data

        def here(seed: int) -> Image.Image:
            return pipeline.generate(PROMPT, seed=seed, steps=steps)[0]

        def networks(way: Callable[[int], object]) -> float:
            return server.total("t2iexport_call_seconds_sum") if way is over_http else sum(calls)

        whole: dict[Any, list[float]] = {over_http: [], here: []}
        rest: dict[Any, list[float]] = {over_http: [], here: []}
        same = 0
        for block in range(-1, rounds):
            made = dict[Any, Any]()
            for way in (over_http, here) if block % 2 else (here, over_http):
                taken, left = list[float](), list[float]()
                for seed in range(_BLOCK):
                    before, start = networks(way), time.perf_counter()
                    made[way, seed] = way(seed)
                    taken.append(time.perf_counter() - start)
                    left.append(taken[-1] - (networks(way) - before))
                if block >= 0:  # of the first block, nothing is warm
                    # The first picture finds caches that the other process has filled.
                    whole[way].append(statistics.median(taken[1:]))
                    rest[way].append(statistics.median(left[1:]))
            same += block >= 0 and all(made[over_http, seed] == png.encode(made[here, seed], "PNG") for seed in range(_BLOCK))
    added = [one - other for one, other in zip(rest[over_http], rest[here], strict=True)]
    told = {"generate_p50_ms": statistics.median(whole[here]), "http_p50_ms": statistics.median(whole[over_http])}
    told |= {"added_p50_ms": statistics.median(added), "added_least_ms": min(added), "added_most_ms": max(added)}
    return {key: round(1e3 * value, 2) for key, value in told.items()} | {"rounds": rounds, "rounds_of_same_files": same}


def load(server: Server, clients: int, seconds: float, steps: Callable[[int], int]) -> dict[str, float]:
    """So many clients, each asking for the next picture when it has one; pictures a second and seconds a picture."""
    until, times, failed = time.perf_counter() + seconds, list[float](), list[int]()
    numbers = itertools.count()

    def run() -> None:
        with server.connect() as connection:
            while time.perf_counter() < until:
                number = next(numbers)
                start = time.perf_counter()
                status, _ = ask(connection, number, steps(number))
                times.append(time.perf_counter() - start)
                failed.extend([status] if status != 200 else [])

    start = time.perf_counter()
    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - start
    ordered = sorted(times)
    at = {"p50": ordered[len(ordered) // 2], "p95": ordered[int(len(ordered) * 0.95)]}
    return {"pictures": len(times), "per_second": len(times) / taken, **at, "failed": len(failed)}


def clients(bundle: Path, steps: int, other: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """8 clients beside one, by the way of batching and by whether all take the same steps; the median of the rounds."""
    cases = list(itertools.product(("continuous", "fixed"), (1, 8), ("same", "mixed")))
    found: dict[Any, list[dict[str, float]]] = {case: [] for case in cases}
    with contextlib.ExitStack() as stack:
        servers = {way: stack.enter_context(serving(bundle, f"batching={way}")) for way in ("continuous", "fixed")}
        for server in servers.values():
            load(server, 8, 2, lambda _: steps)
        for _ in range(rounds):
            for way, count, kind in cases:
                server = servers[way]
                calls, items = (
                    server.total("t2iexport_batch_items_count", "unet"),
                    server.total("t2iexport_batch_items_sum", "unet"),
                )
                told = load(server, count, seconds, lambda number, kind=kind: other if kind == "mixed" and number % 2 else steps)
                more = server.total("t2iexport_batch_items_count", "unet") - calls
                told["items"] = (server.total("t2iexport_batch_items_sum", "unet") - items) / max(1, more)
                found[way, count, kind].append(told)
    rows = []
    for (way, count, kind), told in found.items():
        figures = {key: round(statistics.median(each[key] for each in told), 3) for key in told[0]}
        rows.append({"batching": way, "clients": count, "steps": kind, **figures})
    return rows


def seeds(bundle: Path, steps: int, other: int, count: int) -> dict[str, Any]:
    """Pictures that were drawn while 8 clients asked for others, held to the same seeds alone."""
    with serving(bundle) as server:
        wishes = [(seed, steps if seed % 2 else other) for seed in range(count)]
        together: dict[int, bytes] = {}

        def run(share: Sequence[tuple[int, int]]) -> None:
            with server.connect() as connection:
                for seed, own in share:
                    together[seed] = ask(connection, seed, own)[1]

        run(wishes)
        alone = [together[seed] for seed, _ in wishes]

        threads = [threading.Thread(target=run, args=(wishes[start::8],)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        items = server.total("t2iexport_batch_items_sum", "unet") / server.total("t2iexport_batch_items_count", "unet")
    pairs = [(pixels(one), pixels(together[seed])) for (seed, _), one in zip(wishes, alone, strict=True)]
    worst = max(int(np.abs(one - two).max()) for one, two in pairs)
    differing = sum(bool((one != two).any()) for one, two in pairs)
    error = max(float(np.mean(np.square((one - two) / 255))) for one, two in pairs)
    decibels = "none differs" if not error else round(-10 * np.log10(error), 1)
    return {
        "pictures": count,
        "mean_items": round(items, 2),
        "worst_level": worst,
        "differing": differing,
        "worst_psnr": decibels,
    }


def pixels(data: bytes) -> np.ndarray:
    """Of a PNG, as numbers that can be subtracted."""
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(np.int64)


def page(bundle: Path, steps: int, visits: int, picture: Path | None) -> dict[str, Any]:
    """Seconds from opening the page to its being ready, and to the first preview of a picture that is asked for at once."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        return {"not measured": "there is no Chromium"}
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the other sections do without

    ready, preview = list[float](), list[float]()
    with serving(bundle) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(visits):
            opened = browser.new_context(viewport={"width": 1180, "height": 840}).new_page()
            start = time.perf_counter()
            opened.goto(f"http://127.0.0.1:{server.port}/")
            opened.wait_for_selector("#steps option", state="attached")
            ready.append(time.perf_counter() - start)
            opened.select_option("#steps", str(steps))
            opened.fill("#prompt", PROMPT)
            opened.click("#draw")
            opened.wait_for_selector("#frame img")
            preview.append(time.perf_counter() - start)
            opened.wait_for_selector("#about:visible")
            if picture:
                opened.screenshot(path=picture)
            opened.context.close()
        browser.close()
    told = {"ready_p50": statistics.median(ready), "preview_p50": statistics.median(preview), "preview_most": max(preview)}
    return {key: round(value, 2) for key, value in told.items()} | {"visits": visits}


def faults(bundle: Path, steps: int, vanish: int, malformed: int) -> dict[str, Any]:
    """What must not bring a server down, and the finished pictures that a stop must not lose."""
    rng = random.Random(0)  # noqa: S311 - which fault comes next is no secret
    with serving(bundle, "queue=256") as server:
        for index in range(vanish):
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                body = json.dumps({"prompt": PROMPT, "n": 1 + index % 3, "stream": bool(index % 2), "partial_images": 2}).encode()
                head = f"POST {AT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                raw.sendall((head.encode() + body)[: None if index % 4 else rng.randrange(10, 200)])
                time.sleep(rng.random() * 0.02)
        statuses = dict[int, int]()
        sentences = 0
        with server.connect() as connection:
            for index in range(malformed):
                connection.request("POST", AT, MALFORMED[index % len(MALFORMED)], {"content-type": "application/json"})
                answer = connection.getresponse()
                told = json.loads(answer.read())
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                sentences += len(told["error"]["message"]) > 5
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for raw in slow:
            raw.sendall(
                f"POST {AT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{{".encode()
            )
        with server.connect() as connection:
            served = ask(connection, 1, steps)[0]
        for raw in slow:
            raw.close()
        before = server.total("t2iexport_pictures_total", 'result="failed"')
        answers = list[str]()

        def one(seed: int) -> None:
            try:
                with server.connect() as connection:
                    answers.append(str(ask(connection, seed, steps)[0]))
            except (OSError, http.client.HTTPException):
                answers.append("refused")  # it came after the signal

        threads = [threading.Thread(target=one, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 2  # small pictures are done before all of them are in
        while (
            server.total("t2iexport_drawing_pictures") + server.total("t2iexport_queue_pictures") < 8 and time.monotonic() < until
        ):
            time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        status = server.process.wait(120)
    told = {"vanished": vanish, "malformed": malformed, "statuses": statuses, "sentences": sentences, "failed_pictures": before}
    return told | {"status_beside_20_slow": served, "answers_around_sigterm": sorted(answers), "exit_status": status}


def soak(bundle: Path, steps: int, seconds: float) -> dict[str, Any]:
    """Load at the limit, and how much memory the server holds meanwhile: after a quarter of the time, and at its end."""
    with serving(bundle) as server:
        samples, pictures = list[float](), 0.0
        for _ in range(_SAMPLES):
            pictures += load(server, 8, seconds / _SAMPLES, lambda _: steps)["pictures"]
            samples.append(server.rss())
    early, late = samples[_SAMPLES // 4 : _SAMPLES * 2 // 5], samples[-_SAMPLES * 3 // 20 :]
    growth = statistics.median(late) / statistics.median(early) - 1
    sizes = {"early_mb": round(statistics.median(early), 1), "late_mb": round(statistics.median(late), 1)}
    return {"seconds": seconds, "pictures": int(pictures), **sizes, "growth_percent": round(100 * growth, 2)}


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--steps", type=int, required=True, help="Of the bundle's samplers.")
@click.option("--only", multiple=True, type=click.Choice(SECTIONS), help="Only this part; may be repeated.  [default: all]")
@click.option("--rounds", default=16, show_default=True, help="Turns of `overhead`, visits of `page`.")
@click.option("--screenshot", type=click.Path(path_type=Path), help="PNG of the page as the last visit leaves it.")
@click.option("--repeats", default=3, show_default=True, help="Rounds of `clients`.")
@click.option("--seconds", default=10.0, show_default=True, help="Of each case of `clients`; of `soak` in all.")
@click.option("--vanish", default=200, show_default=True, help="Clients of `faults` that vanish.")
@click.option("--malformed", default=2000, show_default=True, help="Malformed bodies of `faults`.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every figure as JSON.")
def main(bundle: Path, steps: int, only: tuple[str, ...], json_file: Path | None, **numbers: Any) -> None:  # noqa: ANN401
    """Measures a server over one bundle, and prints what was found."""
    with Pipeline.open(bundle) as pipeline:
        about = pipeline.bundle.manifest
    sizes = (None, None), (about.defaults.height, about.defaults.width)
    others = [entry.steps for entry in about.samplers if entry.steps != steps and (entry.height, entry.width) in sizes]
    other = others[0] if others else steps
    found: dict[str, Any] = {"load_before": psutil.getloadavg()[0]}
    sections: dict[str, Callable[[], Any]] = {
        "overhead": lambda: overhead(bundle, steps, numbers["rounds"]),
        "clients": lambda: clients(bundle, steps, other, numbers["seconds"], numbers["repeats"]),
        "seeds": lambda: seeds(bundle, steps, other, 32),
        "page": lambda: page(bundle, steps, numbers["rounds"], numbers["screenshot"]),
        "faults": lambda: faults(bundle, steps, numbers["vanish"], numbers["malformed"]),
        "soak": lambda: soak(bundle, steps, numbers["seconds"]),
    }
    for name in only or SECTIONS:
        found[name] = sections[name]()
        told = found[name] if isinstance(found[name], list) else [found[name]]
        print(f"{name}:")
        for row in told:
            print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if json_file:
        json_file.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
