import pytest

pytest.importorskip("starlette", reason="the extra [serve] is not installed")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page/page.js", "text/javascript"),
        ("/page/style.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_is_there_for_all_and_speaks_to_its_own_server_alone(server, path, kind):
    status, headers, _ = server(keys=("secret",)).get(path)
    assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/page/static.py", "/page/..%2fstatic.py", "/page/../static.py", "/page/", "/page//etc/passwd"])
def test_nothing_else_is(server, path):
    assert server().get(path)[0] == 404


def test_the_page_names_no_other_machine(server):
    live = server()
    for name in ("", "page/page.js", "page/api.js", "page/mask.js", "page/told.js", "page/style.css"):
        text = live.get(f"/{name}")[2].decode()
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
