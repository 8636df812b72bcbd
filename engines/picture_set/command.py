"""`t2iexport draw BUNDLE PROMPTS`: a file of prompts, drawn in shards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engines.errors import UnsupportedError

if TYPE_CHECKING:
    from engines.picture_set.shards import PictureSet, Shard

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("draw")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompts", type=_FILE)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--ray", "address", metavar="auto|local|ADDRESS", help="Draw on a Ray cluster, by actors that hold the bundle.")
@click.option("--cpus", type=click.FloatRange(0.1), default=1, show_default=True, help="That an actor has.")
@click.option("--gpus", type=click.FloatRange(0), default=0, show_default=True, help="That an actor has; a part is shared.")
@click.option("--shard", type=click.IntRange(1), default=64, show_default=True, help="Pictures that are done together.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first picture; the next adds 1.")
@click.option("--negative-prompt", help="What to stay away from.")
@click.option("--steps", type=int, help="Of the sampler; the bundle says which it has.")
@click.option("--height", type=int, help="In pixels.")
@click.option("--width", type=int, help="In pixels.")
@click.option("--guidance-scale", type=float, help="How strictly the prompt steers.")
@click.option("--backend", help="Which of the bundle's engines to run.")
def draw(
    *,
    bundle: Path,
    prompts: Path,
    output: Path,
    address: str | None,
    cpus: float,
    gpus: float,
    shard: int,
    seed: int,
    backend: str | None,
    **wishes: Any,  # noqa: ANN401
) -> None:
    """Draw a file of prompts, in shards; begun ones go on.

    PROMPTS has one a line. What is finished is not drawn again, and picture i has seed + i, on whichever machine.
    """
    from engines.bundle import Bundle  # noqa: PLC0415 - --help stays quick
    from engines.picture_set.shards import PictureSet, SetAbout, digest  # noqa: PLC0415

    texts = [line.strip() for line in prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise UnsupportedError(f"{prompts} has no prompts; write one a line.")
    manifest, asked = Bundle.open(bundle).manifest, {name: value for name, value in wishes.items() if value is not None}
    if needed := [name for name, entry in manifest.inputs.items() if entry.default is None]:
        raise UnsupportedError(f"a picture set is drawn from prompts alone, and this model needs {' and '.join(needed)} too.")
    about = SetAbout(
        model=manifest.model, backend=backend, prompts=digest(texts), count=len(texts), shard=shard, seed=seed, wishes=asked
    )
    made = PictureSet(output, about, texts)
    left, arguments = made.left(), (str(bundle.resolve()), backend, asked)
    click.echo(f"{len(texts)} pictures in {len(made.shards)} shards; {len(made.shards) - len(left)} are there already", err=True)
    if left:
        _draw(made, left, _rows(address, left, arguments, cpus, gpus))
    click.echo(made.pictures)


def _rows(
    address: str | None, left: Sequence[Shard], arguments: tuple[str, str | None, dict[str, Any]], cpus: float, gpus: float
) -> Iterator[Mapping[str, Any]]:
    """What is drawn, a shard a row."""
    if address:
        from engines.picture_set import ray_data  # noqa: PLC0415

        yield from ray_data.draw(address, left, arguments, cpus=cpus, gpus=gpus)
        return
    from dataclasses import asdict  # noqa: PLC0415

    from engines.picture_set.drawer import Drawer  # noqa: PLC0415

    yield from map(Drawer(*arguments), map(asdict, left))


def _draw(made: PictureSet, left: Sequence[Shard], rows: Iterator[Mapping[str, Any]]) -> None:
    """Keep what comes, and say how far it is."""
    start, done, shards = time.perf_counter(), 0, {shard.number: shard for shard in left}
    whole = sum(len(shard.prompts) for shard in left)
    for number, row in enumerate(rows, start=1):
        if row["error"]:
            raise UnsupportedError(row["error"])
        shard = shards[row["number"]]
        made.keep(shard, row["pictures"])
        done += len(shard.prompts)
        rate = done / (time.perf_counter() - start)
        click.echo(f"{number} of {len(left)} shards: {rate:.2f} pictures a second, {(whole - done) / rate:.0f} s left", err=True)
