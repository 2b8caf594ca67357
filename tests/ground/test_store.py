"""The store survives kills, damage, rivals and full disks; states come back bit for bit."""

import itertools
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.state import pack, unpack

ROUNDS = 40
LENGTH = 200_000


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """A second process that can import this file."""
    command = [sys.executable, "-c", f"import sys; from test_store import *; {code}", *map(str, args)]
    return subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_ends_well(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        bits = [torch.empty(t.shape, dtype=t.dtype).copy_(t).flatten().view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    return bool(a == b)


# killed writers


def write_on(folder: Path) -> Iterator[None]:
    for n in itertools.count():
        yield store.write(folder / "file", bytes([n % 256]) * LENGTH)


def append_on(folder: Path) -> Iterator[None]:
    for n in itertools.count(len(store.lines(folder / "log.jsonl"))):
        yield store.append(folder / "log.jsonl", {"n": n, "text": "x" * 20_000})


def save_on(folder: Path) -> Iterator[None]:
    checkpoints = store.Checkpoints(folder / "checkpoints")
    found = checkpoints.latest(print)
    for step in itertools.count(found[0] + 1 if found else 0):
        yield checkpoints.save(step, {"step": step, "weights": torch.full((LENGTH // 4,), float(step))})


def kill_at_random(writer: Callable[[Path], Iterator[None]], folder: Path, check: Callable[[], object]) -> int:
    """Fork and kill writers, check after each; returns how many kills left something half-written.

    Every other writer is first given the time for one whole write, so that there is progress on the slowest machine.
    """
    delays, struck = random.Random(0), 0
    for n in range(ROUNDS):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            for _ in writer(folder):
                os.write(write, b".")
        if n % 2:
            os.read(read, 1)
        time.sleep(delays.uniform(0.001, 0.04))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
        struck += any(folder.rglob(".*.part"))
        check()
    return struck


def kill_writers(folder: Path) -> None:
    store.write(folder / "file", b"\0" * LENGTH)
    seen: list[int] = [0]

    def check_file() -> None:
        data = (folder / "file").read_bytes()
        assert len(data) == LENGTH
        assert len(set(data)) == 1

    def check_lines() -> None:
        assert [line["n"] for line in store.lines(folder / "log.jsonl")] == list(range(len(store.lines(folder / "log.jsonl"))))

    def check_state() -> None:
        told: list[str] = []
        found = store.Checkpoints(folder / "checkpoints").latest(told.append)
        assert told == []
        if found:
            assert found[0] >= seen[-1]
            assert found[1]["step"] == found[0]
            assert found[1]["weights"].tolist() == [found[0]] * (LENGTH // 4)
            seen.append(found[0])

    assert kill_at_random(write_on, folder, check_file) > 0
    kill_at_random(append_on, folder, check_lines)
    assert len(store.lines(folder / "log.jsonl")) >= ROUNDS // 2
    assert kill_at_random(save_on, folder, check_state) > 0
    assert len(set(seen)) >= ROUNDS // 2

    with store.lock(folder):
        store.Checkpoints(folder / "checkpoints").save(10**6, {})
    assert not list(folder.rglob(".*.part"))


def test_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    assert_ends_well(python("kill_writers(Path(sys.argv[1]))", tmp_path / "run"))


# files and folders


def test_an_unfinished_line_is_left_out_and_then_overwritten(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    assert store.lines(log) == []
    store.append(log, {"epoch": 0, "loss": math.nan})
    with log.open("a") as file:
        file.write('{"epoch": 1, "lo')
    assert store.lines(log) == [{"epoch": 0, "loss": None}]
    store.append(log, {"epoch": 1, "loss": 0.5})
    assert log.read_text() == '{"epoch": 0, "loss": null}\n{"epoch": 1, "loss": 0.5}\n'
    store.write(log, "{}\n{no\n{}\n")
    with pytest.raises(TrickbagError, match=r"log\.jsonl is damaged"):
        store.lines(log)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"

    def fail() -> None:
        with store.writing(path) as folder:
            store.write(folder / "part.txt", "half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list((tmp_path / "runs").iterdir()) == []
    path.mkdir()
    with store.writing(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b")
        store.write(folder / "a.txt", "a")
        assert list(path.iterdir()) == []
    assert store.verify(path) == ""
    assert list(json.loads((path / "MANIFEST.json").read_text())["files"]) == ["a.txt", "sub/b.txt"]
    with pytest.raises(UsageError, match="not empty"), store.writing(path):
        pass
    assert (path / "a.txt").read_text() == "a"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: (path / "a.txt").write_text("b"), "a.txt was changed"),
        (lambda path: (path / "a.txt").write_text("aa"), "a.txt has 2 bytes instead of 1"),
        (lambda path: (path / "a.txt").unlink(), "a.txt is missing"),
        (lambda path: (path / "MANIFEST.json").unlink(), "MANIFEST.json is missing"),
        (lambda path: (path / "MANIFEST.json").write_text('{"files": {"a.txt": 1}}'), "MANIFEST.json is damaged"),
        (lambda path: (path / "MANIFEST.json").write_text("[]"), "MANIFEST.json is damaged"),
        (lambda path: (path / "MANIFEST.json").write_bytes(b"\xff\0"), "MANIFEST.json is damaged"),
        (lambda path: (path / "MANIFEST.json").write_text('{"files": {}}'), "MANIFEST.json does not list a.txt"),
        (lambda path: (path / "later.txt").write_text("b"), ""),
    ],
)
def test_verify_says_what_is_wrong(tmp_path: Path, harm: Callable[[Path], object], reason: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    store.seal(tmp_path)
    harm(tmp_path)
    assert store.verify(tmp_path, "a.txt") == reason


# checkpoints


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "state.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.safetensors").write_bytes(data)


def cut(folder: Path) -> None:
    os.truncate(folder / "state.safetensors", 100)


def drop_the_manifest(folder: Path) -> None:
    (folder / "MANIFEST.json").unlink()


@pytest.mark.parametrize("harm", [flip_a_bit, cut, drop_the_manifest, shutil.rmtree])
def test_a_damaged_newest_checkpoint_falls_back(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    checkpoints, told = store.Checkpoints(tmp_path), list[str]()
    assert checkpoints.latest(told.append) is None
    for step in (10, 20, 30):
        checkpoints.save(step, {"w": torch.full((100,), float(step))})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000020", "step-00000030"]
    harm(tmp_path / "step-00000030")
    found = checkpoints.latest(told.append)
    assert found is not None
    assert found[0] == 20
    assert same(found[1], {"w": torch.full((100,), 20.0)})
    assert [sentence.split(" (")[0] for sentence in told] == (
        [] if harm is shutil.rmtree else [f"The checkpoint {tmp_path}/step-00000030 is damaged"]
    )
    checkpoints.save(30, {"w": torch.full((100,), 30.0)})
    for step in (20, 30):
        flip_a_bit(tmp_path / f"step-000000{step}")
    assert checkpoints.latest(told.append) is None


def test_going_on_from_an_earlier_step_forgets_the_later_ones(tmp_path: Path) -> None:
    checkpoints = store.Checkpoints(tmp_path)
    for step in (10, 20, 15):
        checkpoints.save(step, step)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000010", "step-00000015"]
    assert checkpoints.latest(print) == (15, 15)


def test_a_state_is_saved_as_it_was_while_its_owner_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes its time: the weights change meanwhile, the next save waits for this one."""
    checkpoints, weights, disk = store.Checkpoints(tmp_path), torch.zeros(100), threading.Event()
    seal = store.seal
    monkeypatch.setattr(store, "seal", lambda folder: (disk.wait(60), seal(folder)))
    checkpoints.begin(1, {"w": weights, "best": {"w": weights}})
    assert checkpoints.latest(print) is None
    weights.fill_(2.0)
    disk.set()
    checkpoints.begin(2, {"w": weights, "best": {}})
    weights.fill_(3.0)
    checkpoints.end()
    assert same(store.load_state(tmp_path / "step-00000001"), {"w": torch.zeros(100), "best": {"w": torch.zeros(100)}})
    assert same(store.load_state(tmp_path / "step-00000002"), {"w": torch.full((100,), 2.0), "best": {}})


def test_what_the_disk_refused_is_said_at_the_end_and_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoints = store.Checkpoints(tmp_path / "file")
    checkpoints.begin(1, {})
    with pytest.raises(TrickbagError, match="cannot write"):
        checkpoints.end()
    checkpoints.end()


# states

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


def tensor(shape: list[int], dtype: torch.dtype, strided: bool, seed: int) -> Tensor:
    made = torch.randint(0, 100, [2 * n for n in shape], generator=torch.Generator().manual_seed(seed)).to(dtype)
    cut = made[tuple(slice(None, None, 2) for _ in shape)]
    return cut if strided else cut.contiguous()


tensors = st.builds(tensor, st.lists(st.integers(0, 3), max_size=3), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 9))
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
states = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(states)
def test_a_state_comes_back_exactly(state: Any) -> None:
    found, value = pack(state)
    assert same(unpack(found, json.loads(json.dumps(value, allow_nan=False))), state)


def test_a_state_comes_back_from_the_disk_exactly() -> None:
    base = torch.randn(6, 4)
    special = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45])
    state = {
        "shared": [base, base[1:3], base.t(), nn.Parameter(base)[0]],
        "special": (special, special.bfloat16(), math.nan, -math.inf, -0.0),
        3: {"scalar": torch.tensor(7), "empty": torch.zeros(0, 5), "flag": torch.tensor(True), "deep": {(1, "a"): []}},
        "dict": {"tensor": "0", "tuple": {"float": "inf"}},
        "expanded": torch.ones(1).expand(3, 2),
        "odd \ud800 text": "",
    }
    state["shared"][3] = state["shared"][3].detach()
    with tempfile.TemporaryDirectory() as name:
        with store.writing(Path(name) / "a") as folder:
            store.save_state(folder, state)
        found = store.load_state(Path(name) / "a")
        assert same(found, state)
        found["shared"][0].zero_()
        assert store.verify(Path(name) / "a") == ""
        assert same(found["shared"][1], base[1:3])


def test_an_optimizer_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            model(torch.randn(5, 4, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            optimizer.step()

    straight, resumed, late = made(), made(), made()
    train(*straight, range(6))
    train(*resumed, range(3))
    store.Checkpoints(tmp_path).save(3, [part.state_dict() for part in resumed])
    found = store.Checkpoints(tmp_path).latest(print)
    assert found is not None
    for part, state in zip(late, found[1], strict=True):
        part.load_state_dict(state)
    train(*late, range(3, 6))
    for one, other in zip(late, straight, strict=True):
        assert same(pack(one.state_dict()), pack(other.state_dict()))


def test_what_cannot_be_stored_exactly_is_refused() -> None:
    for value in ({1, 2}, b"bytes", object(), torch.float32):
        with pytest.raises(TypeError, match="a state cannot hold"):
            pack({"a": [value]})


class Bomb:
    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.crater),)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    for write in (pickle.dump, torch.save):
        with (tmp_path / "state.safetensors").open("wb") as file:
            write(Bomb(tmp_path / "crater"), file)
        store.seal(tmp_path)
        for load, path in ((store.load_tensors, tmp_path / "state.safetensors"), (store.load_state, tmp_path)):
            with pytest.raises(TrickbagError, match="is not a safetensors file"):
                load(path)
    assert not (tmp_path / "crater").exists()


def test_checkpoints_can_be_counted_while_their_run_removes_them(tmp_path: Path) -> None:
    steps, over = tmp_path / "steps", threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            (steps / "step-00000001").mkdir(parents=True)
            time.sleep(0)  # the other thread's turn
            shutil.rmtree(steps)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(50_000):
            store.Checkpoints(steps).paths()
    finally:
        over.set()
        thread.join()
    assert store.Checkpoints(steps).paths() == []
    (steps / "step-00000001").mkdir(parents=True)
    assert store.Checkpoints(steps).paths() == [steps / "step-00000001"]


def test_tensors_that_were_loaded_outlive_their_file(tmp_path: Path) -> None:
    kept = {"a": torch.arange(100_000), "of none": torch.empty(0, 3), "one": torch.tensor(0.5), "yes": torch.tensor([True])}
    store.save_tensors(file := tmp_path / "model.safetensors", kept)
    loaded = store.load_tensors(file)
    os.truncate(file, 0)  # a page of a map of it could no longer be read: SIGBUS
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[name], kept[name]) and loaded[name].dtype == kept[name].dtype for name in kept)


def test_a_damaged_or_missing_state_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrickbagError, match=r"MANIFEST\.json is missing"):
        store.load_state(tmp_path)
    store.seal(tmp_path)
    with pytest.raises(TrickbagError, match=r"MANIFEST\.json does not list state\.safetensors"):
        store.load_state(tmp_path)
    with pytest.raises(TrickbagError, match=r"state\.safetensors is missing"):
        store.load_tensors(tmp_path / "state.safetensors")
    store.save_tensors(tmp_path / "state.safetensors", {})
    store.write(tmp_path / "state.json", '{"tensor": "5"}')
    store.seal(tmp_path)
    with pytest.raises(TrickbagError, match="holds no state that this version can read"):
        store.load_state(tmp_path)


# rivals


def hold(path: Path) -> None:
    """Hold the lock until killed, with a forked child (as a loader's worker is) that outlives this process."""
    with store.lock(path):
        child = os.fork()
        if child:
            print(os.getpid(), child, flush=True)
        time.sleep(60)
        os._exit(1)


def wait(path: Path, done: Path) -> None:
    print("waiting", flush=True)
    with store.lock(path, wait=True):
        print(done.exists())


def test_one_process_writes_and_death_frees_the_lock(tmp_path: Path) -> None:
    holder = python("hold(Path(sys.argv[1]))", tmp_path / "run")
    assert holder.stdout is not None
    pid, child = map(int, holder.stdout.readline().split())
    try:
        with (
            pytest.raises(UsageError, match=rf"run is being written by another process \(pid {pid}\)"),
            store.lock(tmp_path / "run"),
        ):
            pass
        holder.kill()
        holder.wait()
        with store.lock(tmp_path / "run"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_a_waiting_process_gets_the_lock_after_its_release(tmp_path: Path) -> None:
    with store.lock(tmp_path / "run"):
        waiting = python("wait(Path(sys.argv[1]), Path(sys.argv[2]))", tmp_path / "run", tmp_path / "done")
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "waiting\n"
        time.sleep(0.3)
        (tmp_path / "done").touch()
    assert assert_ends_well(waiting) == "True\n"


def test_the_lock_sweeps_what_is_left_of_its_own_path_alone(tmp_path: Path) -> None:
    names = [".a[1].7.part", "a[1]/.log.txt.7.part", ".a[1].b.7.part", ".a.7.part", "a[1]/.arm.7.part/", "a[1]/notes.part"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with store.lock(tmp_path / "a[1]"):
        assert [(tmp_path / name).exists() for name in names] == [False, False, True, True, True, True]


# disks


def fill_the_disk(folder: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (LENGTH // 2, LENGTH // 2))
    for save in (
        lambda: store.write(folder / "file", b"x" * LENGTH),
        lambda: store.save_tensors(folder / "file", {"a": torch.zeros(LENGTH)}),
        lambda: store.Checkpoints(folder / "steps").save(1, torch.zeros(LENGTH)),
    ):
        with pytest.raises(TrickbagError, match=r"^cannot write .*: .*large.*\. Free some space, or choose another folder\.$"):
            save()


def test_a_full_disk_is_one_sentence_and_harms_nothing(tmp_path: Path) -> None:
    store.write(tmp_path / "file", "old")
    assert_ends_well(python("fill_the_disk(Path(sys.argv[1]))", tmp_path))
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "steps"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "a" / "b"
    for act in (
        lambda: store.write(inside, "x"),
        lambda: store.append(inside, {}),
        lambda: store.save_tensors(inside, {}),
        lambda: store.Checkpoints(inside).save(1, {}),
        lambda: store.lock(inside).__enter__(),
        lambda: store.write(tmp_path / "file" / "a", "x"),
    ):
        with pytest.raises(TrickbagError, match=rf"^cannot write {tmp_path}.*: [A-Z].*\. Choose another folder\.$"):
            act()
