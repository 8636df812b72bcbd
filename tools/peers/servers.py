"""Race `t2iexport serve` against stable-diffusion.cpp's server: one model, steps and size, by the images API that both speak.

    python -m tools.peers.servers bundles/bk-sdm-tiny --server sd-server --steps 4 --more='--type f16'

The peer's program comes from its sources (docs/serve.md has the commands). It reads the bundle's source model as diffusers saves
it. Both serve at once, from networks that are warm, and are asked in turns: `--clients` at a time, for `--seconds` each. What a
ratio is of is the round; a peer that cannot draw ends the race, with what it said.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from engines.bundle import Bundle
from exporter import machine
from tools.measure.serve import load
from tools.measure.server_process import Server, ask, serving
from tools.peers.bench import save_source

#: Seconds in which a peer must have read its weights.
_PATIENCE = 300


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextlib.contextmanager
def peer(command: Sequence[str], port: int, log: Path) -> Iterator[Server]:
    """Start a server that listens at that port, and stop it at the end.

    Raises:
        ClickException: it ended, or did not answer in time; with the last lines that it said.

    """
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True) as process:
        try:
            until = time.monotonic() + _PATIENCE
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise click.ClickException(f"{command[0]} does not serve:\n" + "\n".join(_last(log)))
                time.sleep(0.1)
            yield Server(process, port)
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _last(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-5:]


def race(servers: dict[str, Server], steps: int, clients: int, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of the rounds, of every server: pictures a second, and seconds a picture at p50 and p95."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for number in range(rounds):
        # Who begins changes, since the first of a round finds the other's threads asleep.
        for name in sorted(servers, reverse=bool(number % 2)):
            told = load(servers[name], clients, seconds, lambda _: steps)
            if told["failed"]:
                raise click.ClickException(f"{name}: {told['failed']} of {told['pictures']} requests failed")
            found[name].append(told)
    return {name: {key: statistics.median(each[key] for each in told) for key in told[0]} for name, told in found.items()}


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--server", type=click.Path(path_type=Path), required=True, help="Program of the peer's server.")
@click.option("--more", default="", help="Further options of the peer, as a shell reads them.")
@click.option("--steps", type=int, required=True, help="Of the bundle's samplers.")
@click.option("--clients", multiple=True, type=int, default=(1, 4), show_default=True, help="At a time; may be repeated.")
@click.option("--seconds", default=30.0, show_default=True, help="Of each server's turn.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every figure as JSON.")
def main(
    bundle: Path,
    server: Path,
    more: str,
    steps: int,
    clients: tuple[int, ...],
    seconds: float,
    rounds: int,
    json_file: Path | None,
) -> None:
    """Races a bundle's server and a peer's, and prints requests a second of both."""
    opened = Bundle.open(bundle)
    asked, port, scale = opened.manifest.defaults, free_port(), opened.manifest.guidance.scale
    found = {
        "processor": machine.environment().processor,
        "steps": steps,
        "size": f"{asked.width}x{asked.height}",
        "more": more,
        "races": [],
    }
    with TemporaryDirectory() as scratch:
        folder, log = Path(scratch) / "model", Path(scratch) / "log"
        save_source(opened, folder)
        words = ["--model", folder, "--listen-port", port, "--steps", steps, "--cfg-scale", 1.0 if scale is None else scale]
        words += ["--sampling-method", "euler", "--width", asked.width, "--height", asked.height]
        with peer([str(server), *map(str, words), *shlex.split(more)], port, log) as other, serving(bundle) as own:
            servers = {"t2iexport": own, server.name: other}
            for name, each in servers.items():
                with each.connect() as connection:
                    status, data = ask(connection, 0, steps)
                if status != 200:
                    raise click.ClickException(f"{name}: status {status}: {data[:300]!r}\n" + "\n".join(_last(log)))
            for count in clients:
                told = race(servers, steps, count, seconds, rounds)
                ratio = told["t2iexport"]["per_second"] / told[server.name]["per_second"]
                found["races"].append({"clients": count, "ratio": ratio, **told})
                click.echo(f"{count} clients at a time: {ratio:.2f} times as many pictures a second")
                for name, figures in told.items():
                    taken = f"p50 {figures['p50']:.2f} s, p95 {figures['p95']:.2f} s"
                    click.echo(f"  {name:<12} {figures['per_second']:.3f} a second, {taken}")
    if json_file:
        json_file.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
