"""A sweep's folder behind a URL: what was finished is there, and another machine goes on with it."""

import shutil

import fsspec
import pytest

from engines.errors import MachineError, MissingDependency, UnsupportedError
from exporter.sweep import remote as module
from exporter.sweep.remote import RemoteFolder
from exporter.sweep.result import ResultFolder
from tests.exporter.sweep.test_result import GOOD


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield f"memory://{tmp_path.name}/sweep" if request.param == "memory" else f"file://{tmp_path}/there/sweep"
    fsspec.filesystem("memory").store.clear()


def finished(remote, name="abc"):
    """A folder in which a point and the base's pictures are done."""
    folder = ResultFolder(remote.local, remote)
    for file, content in (("a.webp", b"shown"), ("reference/0.png", b"base"), ("seen/x.npy", b"made again")):
        (folder.pictures / file).parent.mkdir(exist_ok=True)
        if not (folder.pictures / file).exists():
            (folder.pictures / file).write_bytes(content)
    folder.write(name, GOOD)
    return folder


def test_what_is_finished_is_there_and_another_machine_finds_it(url):
    first = RemoteFolder.of(url)
    first.fetch()
    finished(first)
    system, place = fsspec.core.url_to_fs(url)
    there = {file.removeprefix(place).strip("/") for file in system.find(place)}
    assert there == {"points/abc.json", "pictures/a.webp", "pictures/reference/0.png"}
    shutil.rmtree(first.local)
    second = RemoteFolder.of(url)
    assert second.local == first.local
    second.fetch()
    folder = ResultFolder(second.local, second)
    assert folder.read("abc") == GOOD
    assert (folder.pictures / "a.webp").read_bytes() == b"shown"
    assert (folder.pictures / "reference" / "0.png").read_bytes() == b"base"


def test_each_file_is_sent_once_and_pictures_before_results(url, monkeypatch):
    remote, sent = RemoteFolder.of(url), []
    put = type(remote._system).put_file
    monkeypatch.setattr(type(remote._system), "put_file", lambda own, here, there: (sent.append(there), put(own, here, there)))
    remote.fetch()
    finished(remote)
    finished(remote, "def")
    assert [file.rpartition("/")[2] for file in sent] == ["0.png", "a.webp", "abc.json", "def.json"]
    again = RemoteFolder.of(url)
    again.fetch()
    finished(again, "ghi")
    assert [file.rpartition("/")[2] for file in sent[4:]] == ["ghi.json"]
    (again.local / "pictures" / "a.webp").write_bytes(b"other")  # which keeps its name
    again.send()
    again.send()
    assert [file.rpartition("/")[2] for file in sent[5:]] == ["a.webp"]


def test_a_point_that_is_measured_again_takes_the_place_of_its_older_result(url):
    first = RemoteFolder.of(url)
    first.fetch()
    finished(first)
    shutil.rmtree(first.local)
    second = RemoteFolder.of(url)
    second.fetch()
    newer = GOOD.model_copy(update={"plan": "q"})
    ResultFolder(second.local, second).write("abc", newer)
    shutil.rmtree(second.local)
    third = RemoteFolder.of(url)
    third.fetch()
    assert ResultFolder(third.local).read("abc") == newer


def test_the_report_takes_the_place_of_the_one_before(url):
    remote = RemoteFolder.of(url)
    remote.fetch()
    for text in ("one", "two"):
        (remote.local / "index.html").write_text(text)
        address = remote.send_report()
        assert address == f"{url}/index.html"
        with fsspec.open(address) as file:
            assert file.read() == text.encode()


def test_a_store_that_refuses_is_the_machines_fault_and_the_result_stays_here(url, monkeypatch):
    class NoCredentialsError(Exception):
        """As a cloud's library raises."""

    def refuse(*_):
        raise NoCredentialsError("Unable to locate credentials")

    remote = RemoteFolder.of(url)
    remote.fetch()
    monkeypatch.setattr(type(remote._system), "put_file", refuse)
    with pytest.raises(MachineError, match=r"NoCredentialsError: Unable to locate credentials\n  What was finished lies at"):
        finished(remote)
    assert ResultFolder(remote.local).read("abc") == GOOD
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(module, "default_root", lambda: remote.local.parents[1])
        remote.send()
        assert {file.rpartition("/")[2] for file in remote._system.find(remote._place)} >= {"abc.json", "a.webp"}


def test_a_path_is_no_url_and_unknown_kinds_are_told(monkeypatch):
    assert RemoteFolder.of("report/mine") is None
    with pytest.raises(UnsupportedError, match=r"nobody knows nowhere://.*Name a folder, or a URL of fsspec"):
        RemoteFolder.of("nowhere://x/y")

    def absent(_url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingDependency, match="Install s3fs to access S3, which fsspec needs for s3://"):
        RemoteFolder.of("s3://bucket/x")


@pytest.mark.parametrize(
    "key", ["../../escaped.json", "points/../../escaped.json", "elsewhere/deep/escaped.json", "x/escaped.txt"]
)
def test_a_key_that_is_none_of_ours_is_not_fetched(url, monkeypatch, key):
    remote = RemoteFolder.of(url)
    remote.fetch()
    finished(remote)
    system, find = type(remote._system), type(remote._system).find
    monkeypatch.setattr(system, "find", lambda own, place: [*find(own, place), f"{place}/{key}"])
    monkeypatch.setattr(system, "get_file", lambda _own, there, here: fetched.append((there, here)))
    fetched = []
    RemoteFolder.of(url).fetch()
    assert len(fetched) == 3
    assert not any("escaped" in here for _, here in fetched)
