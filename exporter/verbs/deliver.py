"""Verbs that bring a bundle to where it is to run: another machine, library, server or browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.verbs.options import PATH

if TYPE_CHECKING:
    from engines.triton.repository import Backend
    from exporter.layouts.convert import Layout


@click.command("convert")
@click.argument("bundle", type=PATH)
@click.option("--to", "layout", type=click.Choice(["optimum", "openvino-genai", "ortpackage"]), required=True, help="Whose.")
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write, empty or not there.")
def convert_command(bundle: Path, layout: Layout, output: Path) -> None:
    """Export plain graphs in another tool's layout.

    Exports a bundle's networks anew, for which the source model is needed.
    """
    from exporter import build
    from exporter.report import progress
    from exporter.stages.store import Store

    with progress.stage_lines(error=True) as lines:
        notes = build.convert(bundle, layout, output, Store(say=lines.say), lines, lambda line: click.echo(line, err=True))
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(output)


@click.command("rebuild")
@click.argument("bundle", type=PATH)
@click.option("--backend", help="Only this one.  [default: every backend of the bundle]")
def rebuild_command(bundle: Path, backend: str | None) -> None:
    """Build a bundle's engines again on this machine.

    Of the ONNX files inside; torch is not needed.
    """
    from engines.rebuild import rebuild

    for line in rebuild(bundle, backend, click.echo):
        click.echo(line)


@click.command("triton")
@click.argument("bundle", type=PATH)
@click.option("-o", "--output", type=PATH, default=Path("repository"), show_default=True, help="Folder of the repository.")
@click.option("--backend", type=click.Choice(["onnxruntime", "tensorrt"]), default="onnxruntime", help="Whose engines.")
def triton_command(bundle: Path, output: Path, backend: Backend) -> None:
    """Write a model repository for NVIDIA's Triton.

    The Triton Inference Server plays it; torch is not needed.
    """
    from engines.triton.repository import write

    for name in write(bundle, output, backend):
        click.echo(output / name)


@click.command("web")
@click.argument("bundle", type=PATH)
@click.option("-o", "--output", type=PATH, default=Path("site"), show_default=True, help="Folder of the site.")
@click.option("--onnxruntime-web", "library", type=PATH, metavar="FOLDER|TGZ", help="The npm package, instead of fetching it.")
def web_command(bundle: Path, output: Path, library: Path | None) -> None:
    """Write a static site that draws in its visitors' browsers.

    Any file server hands it out; torch is not needed.
    """
    from engines.web.site import write

    size = write(bundle, output, library)
    click.echo(f"{output}: {size / 1e6:.1f} MB. See it at http://localhost:8000 with: python -m http.server -d {output}")
