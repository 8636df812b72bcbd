import contextlib

from exporter.models import downloads
from tests.exporter.models.test_hub import found, pointed, served  # noqa: F401 - its fixtures


def test_whoever_shows_it_is_told_the_bytes_and_the_library_prints_nothing(served, pointed, capfd):  # noqa: F811
    told = []

    @contextlib.contextmanager
    def display(repo):
        told.append(repo)
        yield lambda done, total: told.append((done, total))
        told.append("end")

    pointed(served.url)
    with downloads.shown(display):
        checkpoint = found()
    assert told[0] == "owner/name"
    assert told[-1] == "end"
    done, total = told[-2]
    assert done == total >= sum(file.stat().st_size for files in checkpoint.files.values() for file in files)
    assert sorted(told[1:-1]) == told[1:-1]
    assert capfd.readouterr() == ("", "")


def test_where_nobody_shows_it_the_library_has_its_own_bars():
    with downloads.bars("owner/name") as bar:
        assert bar is None
