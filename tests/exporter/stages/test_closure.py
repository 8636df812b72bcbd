"""What reaches what, in a package made here."""

import importlib

import pytest

from exporter.stages.closure import Sources

FILES = {
    "exporter/__init__.py": "",
    "exporter/maker.py": """
from exporter import tool
from exporter.kinds import Child
from exporter.unused import nothing
from math import sin as wave
from math import tan as idle

class Plan:
    size = 1

    def make(self):
        from exporter.lazy import work
        return work(self._table(), wave(tool.used()))

    def _table(self):
        return Child()

    def other(self):
        return idle(nothing())
""",
    "exporter/kinds.py": """
from exporter.base import Base

class Child(Base):
    def play(self):
        return LIMIT

LIMIT = 3
REST = 4
""",
    "exporter/base.py": "class Base:\n    def inherited(self):\n        return 5\n",
    "exporter/lazy.py": "import exporter.whole\nfrom pathlib import Path\nFILE = Path(__file__).parent / 'data.json'\n"
    "def work(a, b):\n    return FILE\n\ndef idle():\n    return 6\n",
    "exporter/tool.py": "def used():\n    return 7\n\ndef unused():\n    return 8\n\nprint(9)\n",
    "exporter/unused.py": "def nothing():\n    return 10\n",
    "exporter/whole.py": "def anything():\n    return 11\n",
    "exporter/data.json": "{}",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


class Make:
    """Stands for `Plan.make` there."""

    __module__, __qualname__ = "exporter.maker", "Plan.make"


@pytest.mark.parametrize(
    ("file", "before", "after", "reached"),
    [
        ("maker", "size = 1", "size = 2", True),  # what a method reads of its class
        ("maker", "work(self", "work(self, self", True),
        ("maker", "return Child()", "return Child(0)", True),  # a method that it calls
        ("maker", "idle(nothing())", "idle(0)", False),
        ("maker", "from math import sin as wave", "from math import cos as wave", True),
        ("maker", "from math import tan as idle", "from math import atan as idle", False),
        ("unused", "10", "0", False),
        ("kinds", "return LIMIT", "return 1", True),
        ("kinds", "LIMIT = 3", "LIMIT = 2", True),
        ("kinds", "REST = 4", "REST = 3", False),
        ("base", "5", "0", True),
        ("lazy", "return FILE", "return a", True),
        ("lazy", "6", "0", False),
        ("tool", "7", "0", True),
        ("tool", "8", "0", False),
        ("tool", "9", "0", True),  # an import runs it
        ("whole", "11", "0", False),  # nobody names it
    ],
)
def test_a_change_counts_where_it_is_reached(root, file, before, after, reached):
    first = Sources(root).code([Make])
    path = root / f"exporter/{file}.py"
    assert path.read_text().count(before) == 1
    path.write_text(path.read_text().replace(before, after))
    second = Sources(root).code([Make])
    assert {name for name in first if first[name] != second.get(name)} == ({f"exporter.{file}"} if reached else set())


def test_data_that_is_read_counts(root):
    first = Sources(root).code([Make])
    (root / "exporter/data.json").write_text("[]")
    assert Sources(root).code([Make]) != first


def test_a_module_by_its_name_is_all_of_it(root):
    assert Sources(root).code(["exporter.tool"]) != Sources(root).code([Make])["exporter.tool"]
    with pytest.raises(LookupError, match=r"no source of exporter\.nowhere"):
        Sources(root).code(["exporter.nowhere"])


def test_a_plugin_of_a_third_party_is_read_where_it_is_installed(root, monkeypatch):
    file = root / "their_own.py"
    file.write_text("class Theirs:\n    def run(self):\n        from exporter.tool import used\n        return used() + 1\n")
    monkeypatch.syspath_prepend(root)
    kind = importlib.import_module("their_own").Theirs
    first = Sources(root).code([kind])
    assert first.keys() == {"their_own", "exporter.tool"}
    file.write_text(file.read_text().replace("+ 1", "+ 2"))
    second = Sources(root).code([kind])
    assert {name for name in first if first[name] != second[name]} == {"their_own"}
