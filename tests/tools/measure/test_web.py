"""What needs no browser: the server, and what is said where there is no browser. Pages are tested in tests/engines/web."""

from urllib.request import urlopen

from click.testing import CliRunner

from tools.measure import web


def test_a_folder_is_served_with_the_headers_that_allow_threads(tmp_path):
    (tmp_path / "index.html").write_text("a page")
    with web.served(tmp_path, web.ISOLATED) as address, urlopen(address) as response:  # noqa: S310 - its own
        assert response.read() == b"a page"
        assert {name: response.headers[name] for name in web.ISOLATED} == web.ISOLATED
    with web.served(tmp_path, {}) as address, urlopen(address) as response:  # noqa: S310 - its own
        assert not set(web.ISOLATED) & set(response.headers)


def test_without_a_browser_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(web.shutil, "which", lambda _: None)
    told = CliRunner().invoke(web.main, [str(tmp_path)])
    assert told.exit_code == 1
    assert "apt install chromium" in told.output
