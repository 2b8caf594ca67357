"""What a study found, as plain values: all that the report draws and the tables print.

Accuracies, differences and shares are fractions (0.002 is 0.2 percentage points), times are seconds, NLL is in nats.
"""

from dataclasses import dataclass
from typing import Literal

from trickbag.statistics.intervals import Interval


@dataclass(frozen=True)
class Price:
    """What one run of an arm costs as if it were trained alone."""

    seconds: float
    """For training, finishing and judging; the mean over seeds."""
    ratio: float
    """To the reference, paired by seed, geometric mean."""
    ratio_interval: Interval | None
    """None with fewer than two seeds."""
    to_reference: float | None
    """Seconds until the reference's final accuracy was reached first; None where it never was."""
    images_per_second: float
    memory_bytes: int
    model_bytes: int
    """Of the network that is deployed."""
    latency: float
    """Seconds for one image with all test-time tricks."""
    alone: bool
    """Whether nothing else ran on the device while the times were taken: they count only then."""


@dataclass(frozen=True)
class Curve:
    """Validation accuracy after each epoch."""

    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    """The lowest of the seeds."""
    high: tuple[float, ...]
    """The highest of the seeds."""


CONTROLS = ("placebo", "one-nn", "classifier alone", "same", "matched")
"""Roles of arms that nobody would deploy, and whose spread says nothing of the tricks'."""


@dataclass(frozen=True)
class Arm:
    """One recipe of the study, over its seeds."""

    name: str
    role: str
    """reference, alone, dropped, full, stack, varied, cell (of a factorial), placebo, one-nn, classifier alone,
    same (A/A) or matched."""
    edits: str
    """What differs from the reference, as spelled: "+mixup(alpha=0.2)", "-warmup", "batch_size=16"."""
    accuracies: tuple[float | None, ...]
    """One per seed, None where there is no result; fewer than the study's seeds where a look decided the arm."""
    accuracy: float | None
    sd: float | None
    """Over seeds; None with fewer than two."""
    nll: float | None
    macro_recall: float | None
    ece: float | None
    """Calibration error of what the arm predicts."""
    reliability: tuple[tuple[float, float, float], ...]
    """For bins of confidence: mean confidence, accuracy, share of the images."""
    ece_calibrated: float | None
    """At temperatures that other judged images chose: what is left of the error when a temperature has taken its part."""
    recalls: tuple[float, ...]
    """Recall of each class, mean over seeds; empty where there is no result."""
    price: Price | None
    curve: Curve | None
    failed: int
    """Seeds that diverged or failed."""
    failure_interval: Interval | None


@dataclass(frozen=True)
class Effect:
    """A question that the study answers: a contrast between arms."""

    name: str
    """As "mixup(alpha=0.2)"."""
    kind: str
    """alone, dropped, midpoint, interaction, step, varied, main, pair, shapley, combination or control."""
    arm: str
    """The arm that is compared with the reference; empty where the contrast is of another kind."""
    says: str
    """The contrast in words: "with it alone minus the reference"."""
    points: tuple[float, ...]
    """The difference of each seed."""
    difference: float
    sd: float | None
    error: float | None
    """Standard error of the difference, on new photos and with new seeds; 0 of one and the same network."""
    df: float | None
    """Degrees of freedom behind the standard error; None where there is none, or it is 0."""
    interval: Interval | None
    """For new photos from the same source, adjusted by Holm's method; None where it cannot be computed."""
    over_seeds: Interval | None
    """For the judged images themselves, over seeds alone, not adjusted."""
    p: float | None
    """Adjusted by Holm's method over the declared family."""
    better: float | None
    """Share of seeds in which the arm beats the other, ties half."""
    better_interval: Interval | None
    verdict: str
    """helps, worthwhile, hurts, equivalent, open, identical (the same network) or descriptive (fewer than three seeds)."""
    more_seeds: int | None
    """About how many more seeds would decide an open effect; None where no number would, or none is needed."""
    more_images: int | None
    """About how many more judged images would, with the same seeds."""
    note: str
    """What a reader must know: a guard that acted, an alias, a caveat. Mostly empty."""
    loss_difference: float | None
    """In log-loss at the best temperature, nats; below 0 is better."""
    loss_interval: Interval | None
    """Of the difference in log-loss, for new photos, adjusted as ``interval``."""
    loss_verdict: str
    """As ``verdict``, by the log-loss."""
    correlation: float | None
    """Between the paired seeds of the two sides."""
    seconds_ratio: float | None
    """Price of the arm against what it is compared with."""
    declared: bool
    """Whether it belongs to the family that Holm's method adjusts together; all others were planned too, and stand alone."""
    expected: float | None = None
    """The gain that is expected of a trick or value, all that is known taken together; None of other contrasts."""
    helps: float | None = None
    """The probability that it helps, 0 to 1, by the same belief."""


@dataclass(frozen=True)
class MeasuredEffect:
    """What one's own metric says of an effect."""

    name: str
    says: str
    difference: float | None
    """In the metric's own numbers."""
    interval: Interval | None
    """For new photos, adjusted as ``Effect.interval``."""
    verdict: str
    """As ``Effect.verdict``, by this metric."""
    seeds: int | None = None
    """With a result; None where it is that of the effect."""
    note: str = ""
    """As ``Effect.note``."""


@dataclass(frozen=True)
class Measure:
    """One's own metric as an endpoint."""

    name: str
    better: str
    """Which values are: higher or lower."""
    reference: float | None
    """Mean over the reference's runs."""
    effects: tuple[MeasuredEffect, ...]


@dataclass(frozen=True)
class Downstream:
    """Detectors or segmenters on the bodies of the study's classifiers, on one data set."""

    name: str
    """Of task and data set: "detection on cells"."""
    measure: Literal["map50", "miou"]
    """A share, more being better."""
    split: Literal["val", "test"]
    """That judges."""
    images: int
    """That judge."""
    trainings: int
    """That are finished."""
    runs: int
    """Classifiers behind them: those with the same network share a training."""
    reference: float | None
    """Mean of the measure over the reference's runs."""
    effects: tuple[MeasuredEffect, ...]
    """Of the study's questions, the declared ones as a family of its own."""


@dataclass(frozen=True)
class Picture:
    """A judged image that tells something."""

    path: str
    label: str
    """Its class."""
    predicted: str
    """What the reference says most often."""
    arms: tuple[str, ...]
    """Who gets it right; empty where nobody does."""
    thumbnail: str
    """data:image/jpeg;base64,… encoded anew from decoded pixels."""


@dataclass(frozen=True)
class Proof:
    """The nominated recipe against the reference with fresh seeds, on images that have chosen nothing."""

    seeds: tuple[int, ...]
    images: int
    level: float
    """Of the test: 0.05, divided by the number of nominated recipes that these images have judged so far."""
    reference: tuple[float, ...]
    """Accuracies of the seeds."""
    nominee: tuple[float, ...]
    effect: Effect
    expected: float
    """The gain that the study expected when it nominated the recipe."""

    @property
    def number(self) -> int:
        """Of nominated recipes that these images have judged so far, this one included."""
        return round(0.05 / self.level)

    @property
    def difference(self) -> float:
        """The gain in accuracy."""
        return self.effect.difference

    @property
    def interval(self) -> Interval | None:
        """Of the gain, on new photos."""
        return self.effect.interval

    @property
    def verdict(self) -> Literal["proved", "not proved", "harms"]:
        """Whether the gain, or a loss, is beyond doubt."""
        if self.effect.verdict in ("helps", "worthwhile"):
            return "proved"
        return "harms" if self.effect.verdict == "hurts" else "not proved"


@dataclass(frozen=True)
class Failure:
    """A run that did not end well."""

    arm: str
    seed: int
    kind: str
    """diverged, damaged, error, memory or worker."""
    cause: str


@dataclass(frozen=True)
class Sharing:
    """What common beginnings and watchers saved."""

    trained_steps: int
    naive_steps: int


@dataclass(frozen=True)
class Findings:
    """A whole study."""

    name: str
    """Of the data set."""
    answer: tuple[str, ...]
    """Sentences: which recipe to use, how sure that is, its price; before them what outranks it."""
    recommended: str
    """TOML of the recommended recipe, with a comment that says whether its gain is proved."""
    design: str
    weakness: str
    """What the design cannot tell."""
    on_test: bool
    """Whether the arms were compared on the test images themselves."""
    judges: str
    """Where the arms were judged, in words."""
    images: int
    """Judged so far."""
    groups: int
    """Independent groups of judged images; as many as images where there are none."""
    seeds: tuple[int, ...]
    delta: float
    """Half the width of the region of practical equivalence."""
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    """Judged images per class."""
    trained: tuple[int, ...]
    """Training images per class."""
    arms: tuple[Arm, ...]
    """The reference first."""
    effects: tuple[Effect, ...]
    aliases: tuple[tuple[str, ...], ...]
    """Effects that the design cannot tell apart, a row each."""
    not_run: tuple[str, ...]
    """Arms that conflict, with the reason."""
    hardest: tuple[Picture, ...]
    """Every arm gets them wrong."""
    rescued: tuple[Picture, ...]
    """Only one arm gets them right."""
    check: tuple[tuple[str, str, str], ...]
    """Severity, message and suggestion of each finding about the data."""
    noise: tuple[str, ...]
    """The noise floor in sentences: sd of the reference, smallest detectable effect, what more seeds cannot lower."""
    descriptive: str
    """Why some effects have no verdict; empty where all have one."""
    failures: tuple[Failure, ...]
    proof: Proof | None
    prior: str
    """What the expected gains lean on."""
    decided: tuple[tuple[str, str], ...]
    """What was decided before the run: name and value."""
    departures: tuple[str, ...]
    """From what was decided; empty where there were none."""
    sharing: Sharing
    environment: tuple[tuple[str, str], ...]
    command: str
    """Reproduces the study."""
    plan: str = ""
    """The hash of what was decided, taken before the first run; empty where nothing was."""
    model: str = ""
    """The network of the reference."""
    epochs: int = 0
    """Of the reference."""
    measures: tuple[Measure, ...] = ()
    """One's own metrics."""
    downstream: tuple[Downstream, ...] = ()
    """What the tricks do to detectors and segmenters."""
