"""Data parallelism with real processes: ranks train what one process trains, survive what it survives, and none goes short."""

import os
import re
import signal
import socket
import subprocess
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import album
import pytest
import torch
from processes import Training

from trickbag.engine.loader import Plan
from trickbag.ground import store
from trickbag.ground.errors import UsageError

# A network without batch statistics: the mean of the ranks' gradients is that of the whole batch.
RECIPE = """\
model = "test_vit"
size = 32
epochs = 4
batch_size = 8
lr = 0.05
precision = "fp32"
channels_last = false
mean = [0.5]
std = [0.25]
tricks = ["flip", "random_resized_crop", "warmup(share=0.2)", "ema(half_life=0.2)"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a data set of 51 training images: the last batch of an epoch has three."""
    folder = tmp_path_factory.mktemp("ranks")
    for seed, (split, count) in enumerate({"train": 17, "val": 4, "test": 4}.items()):
        album.fill(folder / "data" / split, {"a": 0, "b": 1, "c": 2}, count, seed=seed + 1)
    album.recipe_file(folder / "recipe.toml", RECIPE)
    return folder


def training(place: Path, name: str, *more: str, checkpoint_seconds: float = 0.0) -> Training:
    """A training of the recipe in a place of its own."""
    recipe = str(place / "recipe.toml")
    return Training(place / name, place / "data", "--recipe", recipe, *more, checkpoint_seconds=checkpoint_seconds)


def ranks(made: Training, count: int = 2) -> list[ForkServerProcess]:
    """Processes with what torchrun tells its ranks."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    started = []
    for rank in map(str, range(count)):
        made.said = made.place / f"said-{rank}"
        own = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
        started.append(made.start(**common, **own))
    return started


def results(made: Training) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights and the epochs' losses of a finished run."""
    assert store.verify(made.out) == ""
    losses = [line["loss"] for line in store.lines(made.out / "log.jsonl") if line["kind"] == "epoch"]
    return store.load_tensors(made.out / "model.safetensors"), losses


@pytest.fixture(scope="module")
def together(place: Path) -> Training:
    """The training under torchrun, on two ranks."""
    made = training(place, "together", checkpoint_seconds=60)
    trickbag = Path(sys.executable).with_name("trickbag")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*torchrun, trickbag, *made.arguments], env=os.environ | made.environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test top-1") == 1
    return made


def test_two_ranks_train_what_one_process_trains(place: Path, together: Training) -> None:
    alone = training(place, "alone", checkpoint_seconds=60)
    assert alone.run() == 0, alone.errors
    (weights, losses), (other_weights, other_losses) = results(alone), results(together)
    assert losses == pytest.approx(other_losses, rel=1e-5)
    torch.testing.assert_close(weights, other_weights, rtol=1e-4, atol=1e-5)


def test_two_ranks_killed_and_stopped_go_on_and_end_bit_identically(place: Path, together: Training) -> None:
    made = training(place, "disturbed")
    leader, other = ranks(made)
    made.moved(leader)
    for process in (leader, other):
        process.kill()
        process.join()
    step = int(made.checkpoints()[-1].name.removeprefix("step-"))
    leader, other = ranks(made)
    made.moved(leader)
    os.kill(other.pid or 0, signal.SIGTERM)
    for rank, process in enumerate((leader, other)):
        process.join()
        assert process.exitcode == 143
        errors = (made.place / f"said-{rank}.err").read_text()
        assert re.search(
            r"trickbag: stopped at step \d+ of 28\. The same command continues there\. .* trickbag finish \S+run\.\n$", errors
        ), errors
    assert int(made.checkpoints()[-1].name.removeprefix("step-")) > step
    for process in ranks(made):
        process.join()
        assert process.exitcode == 0
    (weights, losses), (other_weights, other_losses) = results(made), results(together)
    assert losses == other_losses
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_what_two_ranks_began_one_process_ends(place: Path, together: Training) -> None:
    made = training(place, "fewer")
    leader, other = ranks(made)
    made.moved(leader)
    for process in (leader, other):
        process.kill()
        process.join()
    assert made.run() == 0, made.errors
    assert re.search(r"continuing at step \d+ of 28", made.output)
    (weights, losses), (other_weights, other_losses) = results(made), results(together)
    assert losses == pytest.approx(other_losses, rel=1e-5)
    torch.testing.assert_close(weights, other_weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "each"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (5, 2)])
def test_a_plan_is_that_of_one_process_but_for_a_last_step_that_some_rank_would_go_short_in(count: int, each: int) -> None:
    for images in range(max(2, count * each), 41):
        for batch_size in range(count * each, 21):
            parts = list(Plan(torch.zeros(images), (), 0, 1, batch_size, 16, count, each).epoch(0))
            cuts = list(range(0, images, batch_size))
            if len(cuts) > 1 and images - cuts[-1] < max(2, count * each):
                cuts.pop()
            assert [part.position for part in parts] == cuts
            assert torch.cat([part.rows for part in parts]).unique().tolist() == list(range(images))
            assert min(len(part.rows[count - 1 :: count]) for part in parts) >= each


@pytest.mark.parametrize(("images", "batch_size", "each"), [(40, 3, 1), (40, 7, 2), (3, 16, 1), (7, 16, 2)])
def test_a_step_with_too_few_images_for_all_ranks_is_refused(images: int, batch_size: int, each: int) -> None:
    few, needed = min(images, batch_size), 4 * each
    with pytest.raises(
        UsageError, match=rf"a step with {few} of the {images} .* 4 ranks: each needs .* batch_size to {needed}"
    ):
        Plan(torch.zeros(images), (), 0, 1, batch_size, 16, 4, each).steps()
    assert Plan(torch.zeros(images), (), 0, 1, batch_size, 16).steps() == -(-images // batch_size) - (images % batch_size == 1)
    assert Plan(torch.zeros(images), (), 0, 1, 1, 16, 1, each).steps() == images - 1


def test_fewer_images_a_step_than_ranks_end_in_a_sentence(place: Path) -> None:
    made = training(place, "few", "--set", "batch_size=1")
    for rank, process in enumerate(ranks(made)):
        process.join()
        assert process.exitcode == 2
        errors = (made.place / f"said-{rank}.err").read_text()
        assert re.search(r"trickbag: a step with 1 of the 51 training images is too small for 2 ranks: each needs one", errors)


def test_no_rank_is_left_with_a_single_image_where_batch_statistics_are_needed(place: Path) -> None:
    """Three images would remain for three ranks, and this network ends in maps of one pixel, under a batch norm."""
    made = training(place, "norms", "--model", "test_resnet", "--set", "epochs=1")
    for rank, process in enumerate(ranks(made, 3)):
        process.join()
        assert process.exitcode == 0, (made.place / f"said-{rank}.err").read_text()
    assert [line["step"] for line in store.lines(made.out / "log.jsonl") if line["kind"] == "epoch"] == [6]
