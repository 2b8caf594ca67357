"""A training under way: resumed, followed step by step, logged, checkpointed, stopped; whatever is trained."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from trickbag.engine.loop import Diverged, Judged, Loop, Step
from trickbag.ground import store
from trickbag.ground.environment import number
from trickbag.ground.errors import Interrupted, TrickbagError
from trickbag.ground.events import Doing, EpochDone, Note, Tell
from trickbag.ground.records import MALFORMED, Record
from trickbag.ground.signals import stopping
from trickbag.recipe import Training
from trickbag.runs.folder import DIVERGED, LOG, LogLine
from trickbag.runs.outcome import Spent
from trickbag.trick import judged_weights

CHECKPOINT_SECONDS = 20.0
"""Between two checkpoints, unless TRICKBAG_CHECKPOINT_SECONDS says otherwise."""
LOG_EVERY = 50
R = TypeVar("R", bound=Training)
"""What is trained by."""
F = TypeVar("F")
"""What it ends as."""


class UnderWay(ABC, Generic[R, F]):
    """A training in a folder.

    ``follow`` are recipes whose watchers look on; it begins where another with the same beginning stood (``prefix``, a folder
    with its state), and leaves its own state for others at some shares (``forks``).
    """

    line: ClassVar[type[Record]] = LogLine
    """Of the log."""

    def __init__(
        self,
        recipe: R,
        folder: Path,
        fabric: Fabric,
        tell: Tell,
        follow: Sequence[R] = (),
        prefix: Path | None = None,
        forks: Mapping[float, Path] = MappingProxyType({}),
    ) -> None:
        self.recipe, self.folder, self.fabric, self.tell = recipe, folder, fabric, tell
        self.others, self.prefix, self.forks = follow, prefix, forks
        self.leader = fabric.global_rank == 0
        self.checkpoints = store.Checkpoints(folder / ".work")
        self.log = folder / LOG
        self.spent = self.taught = Spent()
        self.waited = 0.0
        self.first = 0

    @abstractmethod
    def assemble(self) -> Loop:
        """The loop before its first step."""

    @abstractmethod
    def seal(self, loop: Loop) -> F:
        """Score the kept epoch once and write the files of a finished training."""

    def go(self) -> F:
        """Train from the newest checkpoint, or from the start, to the result."""
        return self.seal(self.train())

    def train(self) -> Loop:
        """Train to the end. Raises TrickbagError where the loss is no longer a number."""
        self.fabric.launch()
        began = time.monotonic()
        loop = self.assemble()
        self.resume(loop)
        if self.leader:
            store.check_room(self.folder, self.state(loop))
        self.spend(seconds=time.monotonic() - began - self.waited)
        try:
            with stopping(together=self.fabric.world_size > 1) as stop:
                self.follow(loop, stop)
        except Diverged as diverged:
            raise TrickbagError(self.diverged(diverged, loop)) from None
        finally:
            self.checkpoints.end()
        return loop

    def spend(self, seconds: float = 0.0, step_seconds: float = 0.0, images: int = 0) -> None:
        """Add to what the run took."""
        old = self.spent
        self.spent = Spent(old.seconds + seconds, old.step_seconds + step_seconds, old.images + images)

    def resume(self, loop: Loop) -> None:
        """Go on from the newest valid checkpoint, and take the log back to it."""
        found = self.checkpoints.latest(lambda text: self.tell(Note(text))) if self.leader else None
        found = self.fabric.broadcast(found)
        if not found and self.prefix and not store.verify(self.prefix, *store.STATE, LOG):
            state = store.load_state(self.prefix)
            found = state["loop"]["step"], state | {"first": state["loop"]["step"]}
            store.write(self.log, (self.prefix / LOG).read_bytes())
        if found:
            step, state = found
            self.restore(loop, state)
            self.tell(Note(f"continuing at step {step:,} of {loop.judge.facts.steps:,}"))
        else:
            self.spent = self.taught
        if self.leader:
            reached = {"step": loop.step, "epoch": loop.epoch} if found else {"step": -1, "epoch": -1}
            kept = [line for line in store.lines(self.log, self.line) if line[line["kind"]] <= reached[line["kind"]]]
            store.write(self.log, "".join(store.to_json(line) + "\n" for line in kept))

    def restore(self, loop: Loop, state: dict[str, Any]) -> None:
        """Put the loop and what was spent to where a state was made. Raises TrickbagError where the state is of another run."""
        try:
            loop.load(state["loop"])
            loop.watched = state["watched"]
            self.spent, self.first = Spent(*state["spent"]), state["first"]
        except MALFORMED as error:
            raise TrickbagError(
                f"the state in {self.folder} does not fit this training, as one of another version of trickbag "
                f"({type(error).__name__}: {error}). Continue with that version, or remove the folder to begin anew."
            ) from error

    def follow(self, loop: Loop, stop: Callable[[], int]) -> None:
        """Train to the end; log, tell, and save the state now and then."""
        saved = clock = time.monotonic()
        often = number("TRICKBAG_CHECKPOINT_SECONDS", CHECKPOINT_SECONDS)
        for judged in loop.prepare() if not loop.best else ():
            self.spend(seconds=time.monotonic() - clock)
            clock = time.monotonic()
            self.judged(judged, loop)
        for event in loop.train():
            now = time.monotonic()
            took, clock = now - clock, now
            self.spend(seconds=took)
            if isinstance(event, Judged):
                self.judged(event, loop)
            else:
                self.spend(step_seconds=took, images=event.images)
                self.stepped(event, loop)
                self.fork(event, loop)
            stopped = self.agreed(stop())
            if self.leader and (stopped or now - saved > often):
                self.save(loop)
                saved = time.monotonic()
            if stopped:
                where = f"step {loop.step:,} of {loop.judge.facts.steps:,}"
                raise Interrupted(f"stopped at {where}. The same command continues there.", stopped)
        if self.leader:
            self.save(loop)

    def agreed(self, stopped: int) -> int:
        """The signal that any rank was sent, 0 for none: all stop after the same step."""
        if self.fabric.world_size == 1:
            return stopped
        return int(cast(Tensor, self.fabric.all_reduce(torch.tensor(stopped, device=self.fabric.device), reduce_op="max")))

    def save(self, loop: Loop) -> None:
        """A checkpoint of all that the next step depends on, written while training goes on."""
        loop.check_finite()
        self.checkpoints.begin(loop.step, self.state(loop))

    def state(self, loop: Loop) -> dict[str, Any]:
        """All that the next step depends on, what was spent, and the step at which this run's own training began."""
        return {"loop": loop.state(), "spent": tuple(self.spent), "watched": loop.watched, "first": self.first}

    def fork(self, event: Step, loop: Loop) -> None:
        """Leave the state for runs that go another way from here."""
        for share, path in self.forks.items():
            if event.t >= share and not path.exists():
                with store.writing(path) as folder:
                    store.save_state(folder, self.state(loop))
                    store.write(folder / LOG, "".join(store.to_json(line) + "\n" for line in store.lines(self.log, self.line)))

    def stepped(self, event: Step, loop: Loop) -> None:
        """Tell of a step, and log every fiftieth."""
        self.tell(Doing(f"epoch {loop.epoch + 1} of {self.recipe.epochs}", event.step, loop.judge.facts.steps))
        if self.leader and event.step % LOG_EVERY == 0:
            rate = self.spent.images / self.spent.step_seconds
            line = {"kind": "step", "step": event.step, "t": event.t, "loss": float(event.loss), "lr": event.lr}
            store.append(self.log, line | {"images_per_second": round(rate, 1)})

    def judged(self, event: Judged, loop: Loop) -> None:
        """Log and tell an epoch's scores."""
        line: dict[str, Any] = {
            "kind": "epoch",
            "epoch": event.epoch,
            "step": event.step,
            "t": loop.share,
            "loss": loop.mean_loss,
        }
        own = judged_weights(self.recipe.tricks)
        line |= {"lr": loop.lr, "seconds": round(self.spent.seconds, 1)}
        line |= {"val": event.scores[own].headline(), "kept": own in event.kept}
        if event.scores[""] is not event.scores[own]:
            line["raw"] = event.scores[""].headline()
        if self.others:
            line["weights"] = {name: scores.headline() for name, scores in event.scores.items()}
        if self.leader:
            store.append(self.log, line)
        self.tell(EpochDone(event.epoch, self.recipe.epochs, line))

    def diverged(self, event: Diverged, loop: Loop) -> str:
        """Record that the run diverged, with the step, the learning rate and the files, and say so."""
        files = [loop.loader.pixels.images.paths[row] for row in event.rows]
        message = (
            f"the loss is no longer a number at step {event.step:,} (learning rate {event.lr:.3g}). The last good checkpoint "
            f"is in {self.folder / '.work'}; the batch: {self.folder / DIVERGED}. Lower the rate (--set lr=…), or add "
            "--with warmup or --with clip_gradient."
        )
        if self.leader:
            record = {"message": message, "step": event.step, "lr": event.lr, "files": files}
            store.write(self.folder / DIVERGED, store.to_json(record, indent=2))
        return message
