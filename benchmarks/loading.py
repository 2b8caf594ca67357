"""What the data path was chosen by: decoders, threads against processes, and judged batches cut one by one or all at once.

    python -m benchmarks.loading --data food10

Decoders: images per second on one core from bytes in memory to uint8 pixels of a shorter side of 179, as they are kept for
training at 128, for the photos as they are and enlarged to a shorter side of 1,024. Workers: images per second of an epoch of
random crops and flips to 128 pixels, by threads of this process and by processes of torch's DataLoader. At once: the same
images by one thread, and cut as a GPU does it, here by the CPU. Medians of rounds in turns. Prints Markdown tables.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as F

from benchmarks.machine import origin
from trickbag.data.decode import decode
from trickbag.data.reading import read
from trickbag.engine.assemble import assemble, kept_pixels
from trickbag.engine.cutting import Resident
from trickbag.engine.loader import Slice
from trickbag.engine.loop import Loop
from trickbag.engine.pixels import Cache, pixels, shrink
from trickbag.engine.precision import fabric_for
from trickbag.ground.events import silent
from trickbag.recipe import Recipe
from trickbag.runs.request import request

SIZE, KEPT, LARGE = 128, 179, 1_024
PHOTOS = 200


def with_pillow(content: bytes) -> Tensor:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = KEPT / min(image.size)
    return F.pil_to_tensor(image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BILINEAR))


def with_torchvision(content: bytes) -> Tensor:
    return shrink(decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB), KEPT)


def with_trickbag(content: bytes) -> Tensor:
    return shrink(decode(content, 3, shorter=KEPT).pixels, KEPT)


DECODERS = {"Pillow": with_pillow, "torchvision": with_torchvision, "trickbag: Pillow's draft mode": with_trickbag}


def enlarged(content: bytes) -> bytes:
    """The photo with a shorter side of LARGE pixels."""
    image, out = Image.open(io.BytesIO(content)).convert("RGB"), io.BytesIO()
    scale = LARGE / min(image.size)
    image.resize((round(scale * image.width), round(scale * image.height))).save(out, "jpeg", quality=85)
    return out.getvalue()


class Batches(Dataset[Tensor]):
    """The augmented batches of an epoch, for workers that are processes."""

    def __init__(self, made: Loop) -> None:
        self.loader, self.parts = made.loader, list[Slice](made.plan.epoch(0))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, place: int) -> Tensor:
        part = self.parts[place]
        return self.loader.augmented(part.rows, part.copies, 0, part.size)[0]


def rate(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def table(kinds: dict[str, Callable[[], int]], rounds: int) -> Iterator[str]:
    """Rows with the median rate of each kind."""
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds):
        for name, work in list(kinds.items())[:: -1 if number % 2 else 1]:
            rates[name].append(rate(work))
    for name, values in rates.items():
        yield f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |"


def threads(made: Loop, count: int) -> Callable[[], int]:
    def epoch() -> int:
        made.loader.workers = made.loader.most_workers = count
        return sum(len(batch.rows) for _, batch in made.loader.train(made.plan.epoch(0), 0))

    return epoch


def processes(made: Loop, count: int) -> Callable[[], int]:
    def epoch() -> int:
        normal = made.loader.batch
        loaded = DataLoader(Batches(made), batch_size=None, num_workers=count, prefetch_factor=3)
        return sum(len(normal(x, torch.zeros(len(x), dtype=torch.int64)).x) for x in loaded)

    return epoch


def at_once(made: Loop, cache: Cache) -> Callable[[], int]:
    def epoch() -> int:
        made.loader.resident = Resident(cache, torch.device("cpu"))
        try:
            return threads(made, 1)()
        finally:
            made.loader.resident = None

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="a folder of JPEG photos")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    images = read(args.data)
    photos = [images.path(row).read_bytes() for row in range(0, len(images), len(images) // PHOTOS)][:PHOTOS]
    torch.set_num_threads(1)
    print(f"{origin()}\n\nImages per second; medians of {args.rounds} rounds.")
    for size, own in (("as they are", photos), (f"shorter side {LARGE:,}", [enlarged(photo) for photo in photos])):
        print(f"\n| decoder, photos {size} | median | least | most |\n|---|---|---|---|")
        kinds = {name: lambda f=f, own=own: len([f(photo) for photo in own]) for name, f in DECODERS.items()}
        print("\n".join(table(kinds, args.rounds)))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRICKBAG_CACHE"] = str(Path(folder))
        recipe = Recipe(model="tf_mobilenetv3_small_100", size=SIZE, precision="fp32", channels_last=False, epochs=1).edit(
            ["random_resized_crop", "flip"]
        )
        wanted = request(args.data, recipe)
        cache = pixels(wanted.data, kept_pixels(recipe), silent)
        assert isinstance(cache, Cache)
        made = assemble(recipe, wanted.data, cache, 0, fabric_for("fp32"), lambda run, normal: torch.nn.Identity())
        kinds = {f"{count} thread{'s' * (count > 1)}": threads(made, count) for count in (1, 2)}
        kinds |= {f"{count} process{'es' * (count > 1)}": processes(made, count) for count in (1, 2)}
        print(f"\n| loader, {SIZE} px | median | least | most |\n|---|---|---|---|")
        print("\n".join(table(kinds | {"a batch at once, 1 thread": at_once(made, cache)}, args.rounds)))


if __name__ == "__main__":
    main()
