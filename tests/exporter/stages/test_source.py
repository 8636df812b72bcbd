"""What a source says, without what does not run."""

from exporter.stages.source import read

CODE = '''"""Doc."""

from __future__ import annotations

import a.b
from c import d as e
from . import f

if TYPE_CHECKING:
    from g import h
FILE = Path(__file__).parent / "data.json"
FOLDER = Path(__file__).parent
one, two = 1, e.two


class Kind(Frozen):
    """Doc."""

    field: int = FILE

    def method(self, given: h) -> h:
        """Doc."""
        from i import j  # comment

        return self.other(j, f.attribute.more)


def asked():
    """Doc."""
    plugins.load("graph", "fold")
    return run("from engines.here import main; main()")


print(one)
'''


def test_a_source_is_taken_apart():
    source = read(CODE)
    assert source.imports == {"annotations": "__future__.annotations", "a.b": "a.b", "e": "c.d", "f": ".f"}
    names = {"FILE", "FOLDER", "one", "two", "Kind", "Kind.", "Kind.method", "asked"}
    assert {name for each in source.every for name in each.binds} == names
    (method,) = source.of("Kind.method")
    assert method.imports == {"j": "i.j"}
    assert set(method.names) == {"self.other", "j", "f.attribute"}  # what a function's annotation names does not run
    (asked,) = source.of("asked")
    assert set(asked.imports.values()) == {"exporter.graph.fold", "engines.here.main"}
    (file,) = source.of("FILE")
    assert file.data == ("data.json",)
    (folder,) = source.of("FOLDER")
    assert folder.data == (".",)
    assert len(source.of("Kind")) == 2
    assert [each.names for each in source.always] == [("one", "print")]


def test_only_what_runs_is_digested():
    def digests(text):
        return [each.digest for each in read(text).every]

    told = CODE.replace('"""Doc."""', '"""Other\n\nwords."""').replace("# comment", "").replace("given: h", "given: i")
    assert digests(told) == digests(CODE) == digests(f"# more\n{CODE}")
    changes = {"j, f.": "f, f.", "= 1,": "= 2,", "-> h:": "-> h:\n        del given", "field: int": "field: str"}
    for before, after in changes.items():
        assert sum(a != b for a, b in zip(digests(CODE.replace(before, after)), digests(CODE), strict=True)) == 1


def test_what_was_read_is_kept_and_a_damaged_memory_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = f"{CODE}\nlast = 1\n"
    first = read(text)
    (kept,) = (tmp_path / "t2iexport/code").iterdir()
    for content in (kept.read_text(), "{", ""):
        kept.write_text(content)
        read.cache_clear()
        again = read(text)
        assert [vars(each) for each in again.every] == [vars(each) for each in first.every], content
        assert again.imports == first.imports
