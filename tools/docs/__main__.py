"""`python -m tools.docs`: write what the code knows into the pages."""

from __future__ import annotations

import click

from tools.docs.pages import ROOT, made


@click.command()
def main() -> None:
    """Make every generated block and file anew, and name those that changed."""
    for path, text in made().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            click.echo(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
