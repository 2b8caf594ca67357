"""Whatever a client sends, it gets an answer of 200 to 499 or 503 with a sentence, soon, and never a file."""

import io
import json
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from served import SECONDS, SECRET, Reply, Served, all_of, form

PHOTOS = list[tuple[str, bytes]]
SOON = 10.0
"""Seconds within which everything has its answer; a test fails by far or not at all."""


def sound(found: Reply) -> Reply:
    """An answer that is one."""
    assert found.status < 500 or found.status == 503
    assert SECRET not in found.body
    assert b"root:" not in found.body
    if found.status >= 400:
        assert isinstance(found.json["error"], str)
    return found


@pytest.fixture(autouse=True)
def alive(strict: Served, photos: PHOTOS):
    """After each test the server answers, and has said nothing on its screen but where it is."""
    yield
    end = time.monotonic() + SOON
    while strict.send("/predict", photos[0]).status == 503:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert strict.send("/predict", photos[0]).status == 200
    assert len(strict.output.splitlines()) == 1, strict.output


def file_of(kind: str, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind)
    return file.getvalue()


KINDS = [file_of(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")]
broken = st.builds(
    lambda content, at, by, end: (content[:at] + by + content[at + len(by) :])[:end],
    st.sampled_from(KINDS),
    st.integers(0, 400),
    st.binary(max_size=12),
    st.integers(1, 3000),
)
names = st.text(st.characters(exclude_characters='\r\n"', exclude_categories=("Cs",)), max_size=30) | st.sampled_from(
    ["../../etc/passwd", "/etc/passwd", "secret.txt", "..\\secret.txt", "file:///etc/passwd", "C:\\x", "\0", "x" * 3000]
)


@examples(max_examples=60)
@given(st.lists(st.tuples(names, broken | st.binary(max_size=300)), max_size=4))
def test_any_images(strict: Served, parts: PHOTOS) -> None:
    found = sound(strict.send("/predict", *parts))
    assert found.status in ((200, 422) if parts else (422,))
    if parts:
        assert len(found.json["images"]) == len(parts)
        sound(strict.send("/explain", parts[0]))


TYPES = """
    multipart/form-data; boundary=edge|multipart/form-data|multipart/form-data; boundary=|multipart/mixed|text/plain|
    multipart/form-data; boundary=edge; charset=idna|multipart/form-data; boundary=edge; charset=utf-7|image/|;|
    application/json|image/png|application/x-www-form-urlencoded"""
PIECES = (
    *(
        b"--edge\r\n",
        b"--edge--",
        b"\r\n",
        b"\r\n\r\n",
        b'Content-Disposition: form-data; name="a"',
        b'; filename="secret.txt"',
    ),
    *(b"Content-Disposition: form-data; name*=utf-8''a", b"Content-Type: image/png", b"Content-Transfer-Encoding: base64"),
    *(b'; filename="secret.txt"', b"path=secret.txt", b"\xff+2AA-", b"x" * 5000, b"--"),
)


@examples(max_examples=60)
@given(
    st.sampled_from([kind.strip() for kind in TYPES.split("|")]),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=12),
)
def test_any_body_of_any_type(strict: Served, kind: str, parts: list[bytes]) -> None:
    assert sound(strict.ask("POST", "/predict", b"".join(parts), Content_Type=kind)).status in (200, 400, 413, 415, 422)


CODECS = ("idna", "punycode", "undefined", "utf-7", "utf-16", "zlib", "hex", "unicode_escape", "é", "x" * 500)


@pytest.mark.parametrize("charset", CODECS)
def test_no_text_codec_that_a_form_names_fails(strict: Served, charset: str) -> None:
    kind = f"multipart/form-data; boundary=edge; charset={charset}"
    body = b'--edge\r\nContent-Disposition: form-data; name="\xff\xfe"; filename="+2AA-\xff.png"\r\n\r\nx\r\n--edge--\r\n'
    assert sound(strict.ask("POST", "/predict", body, Content_Type=kind)).status in (400, 422)


WIRE = (
    *(b"GET ", b"POST ", b"CONNECT ", b"BREW ", b"/", b"/predict", b"http://evil/", b"*", b" HTTP/1.1\r\n", b" HTTP/9\r\n"),
    *(b"\r\n", b"\r\n\r\n", b"Host: localhost\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n", b"5\r\nabcde\r\n"),
    *(b"Expect: 100-continue\r\n", b"zz\r\n", b"0\r\n\r\n", b"\0", b"\xff"),
)


@examples(max_examples=60)
@given(st.binary(max_size=200) | st.lists(st.sampled_from(WIRE), max_size=14).map(b"".join))
def test_any_bytes_on_the_wire(strict: Served, sent: bytes) -> None:
    began = time.monotonic()
    found = strict.raw(sent)
    assert time.monotonic() - began < SOON
    assert SECRET not in found
    assert not found or found.startswith(b"HTTP/1.")
    assert b" 500 " not in found.partition(b"\r\n")[0]


WAYS = (
    *("/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/etc/passwd", "/static/../../etc/passwd"),
    *("/secret.txt", "/.git/config", "/page.html", "/%00", "/predict/../../etc/passwd", "http://localhost/etc/passwd"),
)


@pytest.mark.parametrize("way", WAYS)
def test_no_address_is_a_file(strict: Served, way: str) -> None:
    assert sound(strict.ask("GET", way)).status in (404, 421)


def test_a_path_in_a_field_is_never_opened(strict: Served, place, photos: PHOTOS) -> None:
    secret = str(place / "secret.txt")
    part = b'--edge\r\nContent-Disposition: form-data; name="photo"\r\n\r\n%s\r\n--edge--\r\n' % secret.encode()
    refused = sound(strict.ask("POST", "/predict", part, Content_Type="multipart/form-data; boundary=edge"))
    assert (refused.status, "holds text, not a file" in refused.json["error"]) == (422, True)
    for query in (f"run={secret}", "run=../one", f"class={secret}", f"path={secret}", f"name={secret}"):
        sound(strict.send(f"/explain?{query}", ("x", b"no")))
    assert sound(strict.send("/predict", (secret, b"no image"))).status == 422


METHODS = ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW")


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_refused(strict: Served, method: str) -> None:
    found = strict.ask(method, "/predict")
    assert found.status in (405, 404)
    assert method == "HEAD" or found.json["error"]


OUT_OF_RANGE = (
    *(("top=0", "top: "), ("top=x", "top: "), ("threshold=nan", "threshold: "), ("threshold=2", "threshold: ")),
    *(("run=no", "There is no run no"), ("run=%ff%00", "There is no run"), ("top=1&top=99999999999999999999", "top: ")),
)


@pytest.mark.parametrize(("query", "words"), OUT_OF_RANGE)
def test_options_out_of_range_are_a_sentence(strict: Served, photos: PHOTOS, query: str, words: str) -> None:
    found = sound(strict.send(f"/predict?{query}", photos[0]))
    assert found.status in (404, 422)
    assert found.json["error"].startswith(words)


def test_each_limit_has_its_status(strict: Served, photos: PHOTOS) -> None:
    assert sound(strict.send("/predict", *[photos[0]] * 5)).status == 413
    assert sound(strict.send("/predict", *[photos[0]] * 4)).status == 200
    assert sound(strict.send("/predict", ("big", bytes(1_100_000)))).status == 413
    assert sound(strict.ask("POST", "/predict", bytes(1_100_000), Content_Type="image/png")).status == 413
    assert sound(strict.ask("POST", "/predict", b"x", Content_Type="text/html")).status == 415
    assert sound(strict.ask("POST", "/predict", b"", Content_Type="image/png")).status == 422
    large = sound(strict.send("/predict", ("large.png", file_of("PNG", (400, 300)))))
    assert large.status == 422
    assert "too large: 400 x 300 pixels; the limit is 0.1 million" in large.json["error"]


def test_a_body_without_a_length_is_cut_at_the_limit(strict: Served) -> None:
    head = head_of(strict, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with strict.connect() as wire:
        wire.sendall(head)
        for _ in range(40):
            wire.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        wire.sendall(b"0\r\n\r\n")
        assert b" 413 " in wire.recv(4096).partition(b"\r\n")[0]


def bomb() -> bytes:
    """A PNG of 100,000 x 100,000 pixels in a kilobyte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def scans() -> bytes:
    """A progressive JPEG of 300 x 300 pixels whose scans are there again and again."""
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)).save(content, "JPEG", progressive=True)
    data = content.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * ((900_000 - last) // (len(data) - last - 2)) + b"\xff\xd9"


def text_bomb() -> bytes:
    """A PNG with a megabyte of zeros in its text, compressed thousandfold and more."""
    png = file_of("PNG")
    text = b"a\0\0" + zlib.compress(bytes(100 << 20), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return png[:33] + chunk + png[33:]


def an_array(shape: str) -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


BOMBS = {
    "png": bomb,
    "scans": scans,
    "text": text_bomb,
    "npy": lambda: an_array("(9999999, 9999999, 3)"),
    "objects": lambda: an_array("(1, 2, 999999999999)"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_time_and_memory(strict: Served, name: str) -> None:
    before, began = strict.memory(), time.monotonic()
    found = sound(strict.send("/predict", (name, BOMBS[name]())))
    assert found.status in (200, 422)
    assert time.monotonic() - began < SOON
    assert strict.memory() - before < 300e6


def head_of(strict: Served, length: int) -> bytes:
    named = f"POST /predict HTTP/1.1\r\nHost: localhost:{strict.port}\r\n"
    return f"{named}Content-Type: image/png\r\nContent-Length: {length}\r\n\r\n".encode()


def test_slow_clients_are_told_and_left(strict: Served) -> None:
    """A body that stops, one that drips, headers that never end, and nothing at all."""

    def drip(head: bytes, part: bytes) -> tuple[bytes, float]:
        began = time.monotonic()
        with strict.connect() as wire:
            wire.sendall(head)
            wire.settimeout(0.1)
            answer = b""
            while time.monotonic() - began < 3 * SOON:
                try:
                    if part:
                        wire.sendall(part)
                    got = wire.recv(4096)
                except TimeoutError:
                    continue
                except OSError:
                    break
                if not got:
                    break
                answer += got
        return answer, time.monotonic() - began

    ways = [
        (head_of(strict, 1000), b""),
        (head_of(strict, 100_000), b"x"),
        (b"GET / HTTP/1.1\r\nX: ", b"x"),
        (b"", b""),
        (b"GET", b""),
    ]
    with ThreadPoolExecutor(len(ways)) as clients:
        for (answer, took), (head, _) in zip(clients.map(lambda way: drip(*way), ways), ways, strict=True):
            assert b" 408 " in answer.partition(b"\r\n")[0], head
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].endswith("did not arrive within 2 s.")
            assert SECONDS <= took < SOON


def test_headers_without_end_are_refused(strict: Served) -> None:
    with strict.connect() as wire:
        wire.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        refused = all_of(wire)
    assert b" 400 " in refused.partition(b"\r\n")[0]
    assert b"more than 16,384 bytes" in refused


def test_a_full_queue_says_so_and_when_to_come_again(strict: Served) -> None:
    work = [("x.bmp", file_of("BMP", (300, 300)))] * 3
    with ThreadPoolExecutor(24) as clients:
        found = list(clients.map(lambda _: sound(strict.send("/predict", *work)), range(72)))
    assert {reply.status for reply in found} == {200, 503}
    refused = [reply for reply in found if reply.status == 503]
    assert {reply.headers["retry-after"] for reply in refused} == {"1"}
    assert any(reply.json["error"] == "2 requests are with one already. Ask again in a moment." for reply in refused)


def test_a_thousand_connections_leave_room_for_another(server: Served, photos: PHOTOS) -> None:
    wires: list[socket.socket] = []
    try:
        for number in range(1000):
            try:
                wires.append(server.connect())
            except OSError:  # this process may open no more files
                break
            if number % 3 == 0:
                wires[-1].sendall(b"GET / HTTP/1.1\r\n")
        assert len(wires) > 200
        assert server.send("/predict", photos[0]).status == 200
        assert all_of(wires[1]) == b"", "the first of the silent made room for others, before its time was over"
    finally:
        for wire in wires:
            wire.close()


def test_clients_that_leave_harm_nobody(strict: Served, photos: PHOTOS) -> None:
    body = form(photos[0])
    head = head_of(strict, len(body)).replace(b"image/png", b"multipart/form-data; boundary=edge")
    for cut in (len(head), len(head) + 10, len(head) + len(body) // 2, len(head) + len(body)):
        for _ in range(5):
            with strict.connect() as wire:
                wire.sendall((head + body)[:cut])
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
