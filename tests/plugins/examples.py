"""The worked examples of CONTRIBUTING.md: each a file of its own, installed as another package's plugin would be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
_EXAMPLE = re.compile(r"^A worked example, `(\w+)\.py`.*?^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: Section of the page → kind of plugin.
KINDS = {"family": "families", "backend": "backends", "pass": "passes", "graph pass": "graph", "sampler": "samplers"}


@dataclass(frozen=True)
class Example:
    """A section's example."""

    kind: str
    name: str
    text: str

    def install(self, folder: Path) -> None:
        """Write its one file, and beside it what an installer says of a package: which name is whose."""
        folder.mkdir()
        (folder / f"{self.name}.py").write_text(self.text, encoding="utf-8")
        (public,) = re.findall(r'^__all__ = \["(\w+)"\]$', self.text, re.MULTILINE)
        told = folder / f"{self.name}-1.0.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.name}\nVersion: 1.0\n", encoding="utf-8")
        entry = f"[t2iexport.{self.kind}]\n{self.name} = {self.name}:{public}\n"
        (told / "entry_points.txt").write_text(entry, encoding="utf-8")


def section(thing: str) -> str:
    """Text of `## Add a <thing>`."""
    (found,) = re.findall(rf"^## Add a {thing}\n(.*?)(?=^## )", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return found


def example(thing: str) -> Example:
    """The one example of a section."""
    ((name, text),) = _EXAMPLE.findall(section(thing))
    return Example(KINDS[thing], name, text)


def metric() -> str:
    """The example's lines of `exporter/parity/metrics.py`."""
    (text,) = re.findall(r"^```python\n(.*?)^```$", section("metric"), re.DOTALL | re.MULTILINE)
    return text
