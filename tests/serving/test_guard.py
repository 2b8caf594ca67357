"""Other sites cannot ask, and without the token nobody can."""

import http.cookies
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Reply, Served

PHOTOS = list[tuple[str, bytes]]
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def locked(place: Path) -> Iterator[Served]:
    """A server that others can reach."""
    with Served(place, str(place / "one"), "--host", "0.0.0.0", TRICKBAG_TOKEN=TOKEN) as started:
        yield started
        assert TOKEN not in started.output


def test_only_the_bound_names_are_answered(server: Served) -> None:
    port = server.port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LocalHost:{port}"):
        assert server.ask("GET", "/healthz", Host=host).status == 200
    others = ("evil.example:{}", "127.0.0.1.evil.example:{}", "192.168.0.1:{}", "localhost:{}1", "user@localhost:{}")
    for host in ("localhost", "", ":", "[::1:{}", "localhost:{}:{}", *others):
        for path in ("/healthz", "/", "/runs", "/nothing"):
            assert server.ask("GET", path, Host=host.format(port, port)).status == 421, host
    assert b" 400 " in server.raw(b"GET / HTTP/1.1\r\n\r\n").splitlines()[0]
    assert b" 421 " in server.raw(b"GET / HTTP/1.0\r\n\r\n").splitlines()[0]


ORIGINS = ("http://evil.example", "null", "https://localhost:{}", "http://localhost:1", "http://127.0.0.1:{}.evil.example", "")


@pytest.mark.parametrize("origin", ORIGINS)
def test_pages_of_other_sites_get_no_answer(server: Served, photos: PHOTOS, origin: str) -> None:
    headers = {"Origin": origin.format(server.port), "Host": f"localhost:{server.port}"}
    for found in (
        server.send("/predict", photos[0], **headers),
        server.send("/explain", photos[0], **headers),
        server.ask("GET", "/runs", **headers),
        server.ask("OPTIONS", "/predict", Access_Control_Request_Method="POST", **headers),
    ):
        assert found.status == 403
        assert not [name for name in found.headers if name.startswith("access-control")]


def test_the_page_itself_may_ask(server: Served, photos: PHOTOS) -> None:
    own = {"Origin": f"http://localhost:{server.port}", "Host": f"localhost:{server.port}", "Sec_Fetch_Site": "same-origin"}
    assert server.send("/predict", photos[0], **own).status == 200


def test_what_a_browser_says_of_other_sites_is_believed(server: Served, photos: PHOTOS) -> None:
    for site in ("cross-site", "same-site"):
        assert server.send("/predict", photos[0], Sec_Fetch_Site=site).status == 403
        assert server.ask("GET", "/runs", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
        assert server.ask("GET", "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate").status == 200, "a link to the page"


def test_every_answer_forbids_what_it_does_not_need(server: Served) -> None:
    for found in (
        server.ask("GET", "/"),
        server.ask("GET", "/runs"),
        server.ask("GET", "/x"),
        server.ask("GET", "/", Host="x"),
    ):
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["referrer-policy"] == "no-referrer"
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        policy = found.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not [name for name in found.headers if name.startswith("access-control") or name == "server"]


def ways(server: Served, photos: PHOTOS, **headers: str) -> Iterator[Reply]:
    yield server.ask("GET", "/", **headers)
    yield server.ask("GET", "/runs", **headers)
    yield server.ask("GET", "/openapi.json", **headers)
    yield server.send("/predict", photos[0], **headers)
    yield server.send("/explain", photos[0], **headers)


def test_without_the_token_there_is_nothing(locked: Served, photos: PHOTOS) -> None:
    headed = [{"Authorization": said} for said in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é", "Bearer")]
    baked = [{"Cookie": f"trickbag-{locked.port}={said}"} for said in (TOKEN, "", '"; =;,\\')]
    wrong: list[dict[str, str]] = [{}, *headed, *baked]
    for headers in wrong:
        for found in ways(locked, photos, **headers):
            assert found.status == 401
            assert found.headers["www-authenticate"] == "Bearer"
    for path in ("/?token=wrong", f"/?token={TOKEN}x", "/?token=", "/?token=%ff", f"/runs?token={TOKEN}"):
        assert locked.ask("GET", path).status == 401
    assert locked.ask("GET", "/healthz").status == 200


def test_the_token_opens_all(locked: Served, photos: PHOTOS) -> None:
    for found in ways(locked, photos, Authorization=f"Bearer {TOKEN}"):
        assert found.status == 200


def test_the_page_trades_the_token_for_a_cookie(locked: Served, photos: PHOTOS) -> None:
    entered = locked.ask("GET", f"/?token={TOKEN}")
    assert (entered.status, entered.headers["location"]) == (303, "/")
    (kept,) = http.cookies.SimpleCookie(entered.headers["set-cookie"]).values()
    assert kept["httponly"]
    assert kept["samesite"] == "Strict"
    assert TOKEN not in entered.headers["set-cookie"]
    for found in ways(locked, photos, Cookie=f"other=1; {kept.key}={kept.value}"):
        assert found.status == 200
    evil = locked.send("/predict", photos[0], Cookie=f"{kept.key}={kept.value}", Origin="http://evil.example")
    assert evil.status == 403


def test_others_reach_it_by_address_and_not_by_a_name_of_theirs(locked: Served) -> None:
    assert locked.ask("GET", "/healthz", Host=f"192.168.0.7:{locked.port}").status == 200
    assert locked.ask("GET", "/healthz", Host=f"evil.example:{locked.port}").status == 421
