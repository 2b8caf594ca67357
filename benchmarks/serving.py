"""What the server adds to the network, how long a request takes, and whether its memory stays what it is.

    python -m benchmarks.serving --run RUN --photos FOLDER

The bare network judges pixels in memory, ``predict`` decodes photos too, the server gets the same photos over loopback, eight
at a time: in turns, so that a machine that slows down slows all. Then thousands of requests with one photo each, every tenth
of them hostile. Server and client each compute with one thread. Prints a Markdown table.
"""

import argparse
import http.client
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import torch
from PIL import Image

import trickbag as tb
from benchmarks.machine import origin
from trickbag.data.decode import decode
from trickbag.engine.pixels import fitted
from trickbag.ground.text import counted

TOGETHER = 8
"""Photos of a request, and of a batch of the bare network."""
FORM = "multipart/form-data; boundary=edge"


class Client:
    """A connection that stays."""

    def __init__(self, port: int) -> None:
        self.wire = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, body: bytes, kind: str = FORM, method: str = "POST", path: str = "/predict") -> int:
        self.wire.request(method, path, body, {"Content-Type": kind})
        answer = self.wire.getresponse()
        answer.read()
        return answer.status


def form(photos: list[bytes]) -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    return b"".join(head + photo + b"\r\n" for photo in photos) + b"--edge--\r\n"


def hostile(photo: bytes) -> list[tuple[bytes, str, str, str]]:
    """Body, content type, method and path."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return [
        (form([file.getvalue()]), FORM, "POST", "/predict"),
        (form([photo[: len(photo) // 2], b"no image", b""]), FORM, "POST", "/predict"),
        (form([photo])[:-300], FORM, "POST", "/predict"),
        (bytes(2_000_000), "image/png", "POST", "/predict?top=0"),
        (photo, "text/html", "POST", "/predict"),
        (b"", "image/png", "GET", "/../../etc/passwd"),
        (form([photo] * 100), FORM, "POST", "/predict"),
    ]


def memory(process: int) -> float:
    """MB that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def started(run: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "trickbag", "serve", run, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    found = re.search(r":(\d+)/", process.stdout.readline())
    assert found
    return process, int(found[1])


def rate(work: Callable[[], object], images: int) -> float:
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)


def throughput(run: str, port: int, photos: list[bytes], rounds: int) -> None:
    known, client = tb.load(run), Client(port)
    card = known.card
    pixels = [fitted(decode(photo, card.channels, shorter=card.kept).pixels, known.fit, card.kept) for photo in photos]
    groups = range(0, len(photos), TOGETHER)
    forms = [form(photos[start : start + TOGETHER]) for start in groups]
    ways: dict[str, Callable[[], object]] = {
        "the bare network, 8 at once": lambda: [list(known.outputs(pixels[start : start + TOGETHER])) for start in groups],
        "`predict`: it decodes too": lambda: list(known.predict(photos)),
        "the server, 8 photos a request": lambda: [client.ask(body) for body in forms],
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            found = rate(work, len(photos))
            if number:  # the first round warms up
                rates[name].append(found)
    bare = rates["the bare network, 8 at once"]
    print("| | images/s | of the bare network |\n|---|---|---|")
    for name, own in rates.items():
        shares = [a / b for a, b in zip(own, bare, strict=True)]
        print(f"| {name} | {spread(own, '.0f')} | {spread(shares, '.2f')} |")


def statuses(found: Counter[int]) -> str:
    return ", ".join(f"{times:,} × {status}" for status, times in sorted(found.items()))


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def many(process: int, port: int, photos: list[bytes], requests: int, clients: int) -> None:
    bodies, evil = [form([photo]) for photo in photos], hostile(photos[0])
    took: list[float] = []
    said: Counter[int] = Counter()
    bad: Counter[int] = Counter()
    held: dict[int, float] = {}
    number = count(1)

    def work() -> None:
        client = Client(port)
        while (own := next(number)) <= requests:
            if own % 10 == 0:
                bad[client.ask(*evil[own // 10 % len(evil)])] += 1
            else:
                began = time.perf_counter()
                said[client.ask(bodies[own % len(bodies)])] += 1
                took.append(1000 * (time.perf_counter() - began))
            if own in (requests // 10, requests // 2, requests):
                held[own] = memory(process)

    with ThreadPoolExecutor(clients) as threads:
        for done in [threads.submit(work) for _ in range(clients)]:
            done.result()
    cuts = statistics.quantiles(took, n=100)
    print(f"\n{requests:,} requests of {counted(clients, 'client')}. {len(took):,} with one photo: {statuses(said)},")
    print(f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms. {bad.total():,} hostile ones: {statuses(bad)}.\n")
    print("| after requests | MB in memory |\n|---|---|")
    for own, megabytes in sorted(held.items()):
        print(f"| {own:,} | {megabytes:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    photos = [path.read_bytes() for path in sorted(Path(args.photos).rglob("*.jpg"))[:64]]
    process, port = started(args.run)
    try:
        load = os.getloadavg()[0]
        size = sum(map(len, photos)) / len(photos) / 1e3
        print(f"{origin()}\n\nLoad at the start: {load:.1f}. {len(photos)} photos of {size:.0f} kB; one thread each.\n")
        print(f"Images per second, median of {args.rounds} rounds (least to most):\n")
        throughput(args.run, port, photos, args.rounds)
        many(process.pid, port, photos, args.requests, args.clients)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


if __name__ == "__main__":
    main()
