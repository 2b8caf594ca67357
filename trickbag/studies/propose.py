"""Which tricks are worth a study on this data set: a few from the bag, each with the reason."""

from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest

from trickbag.data.audit import Audit
from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec
from trickbag.ground.text import counted
from trickbag.recipe import Recipe
from trickbag.studies.prior import Expected
from trickbag.trick import EVALUATION, Trick
from trickbag.tricks import names, parse

FEW_IMAGES = 60
"""Training images per class below which strong augmentation and frozen layers come first, as in the recipe auto."""
SMALL_SIDE = 64
"""Shorter side in pixels up to which grey images may be letters or digits, which have no mirror image."""
LARGE_BATCH = 128
"""Images of a batch from which on statistics over all of them have little noise."""
Candidate = tuple[str, str]
"""A trick's spelling and the reason for it."""


def propose(
    found: Audit, reference: Recipe, teacher: str = "", most: int = 6, known: Mapping[str, Expected] = {}
) -> list[tuple[Trick, str]]:
    """At most ``most`` tricks to try on this data set, each with a reason in a sentence; 6 fit a two-sided design.

    The groups of candidates take turns: distillation from ``teacher`` (a run's folder or a recipe; empty for none), what
    suits unequal classes, labels that may be wrong, many or few images, and what nearly always suits. With ``known``, what
    other data sets let expect of tricks by their spelling, the largest expected gain per time comes first, and tricks of which
    nothing is known come between those expected to gain and those expected to lose. A trick that is not in the bag, that the
    reference holds, that conflicts with it or with one proposed before, or that could not act is passed over.
    """
    proposed: dict[Trick, str] = {}
    groups = (
        _teacher(teacher),
        _imbalance(found),
        _doubt(found, reference),
        _amount(found, reference),
        _basics(found, reference),
    )
    candidates = [candidate for candidate in chain.from_iterable(zip_longest(*groups)) if candidate]
    rates = {spelling: known[name].rate for spelling, _ in candidates if (name := _spelled(spelling)) in known}
    for spelling, reason in sorted(candidates, key=lambda candidate: -rates.get(candidate[0], 0.0)):
        if len(proposed) < most and (trick := _fitting(spelling, reference, proposed)):
            proposed[trick] = reason
    return list(proposed.items())


def _spelled(spelling: str) -> str:
    """As others have it: with the parameters that are not at their defaults."""
    return str(parse(spelling)) if spelling.partition("(")[0] in names() else spelling


def _fitting(spelling: str, reference: Recipe, proposed: dict[Trick, str]) -> Trick | None:
    """The trick, where it is in the bag and goes with the reference and those proposed."""
    name = spelling.partition("(")[0]
    held = {trick.name() for trick in (*reference.tricks, *proposed)}
    if name not in names() or name in held:
        return None
    trick = parse(spelling)
    if not reference.epochs and not set(trick.plugs()) <= EVALUATION:
        return None
    try:
        reference.edit([str(other) for other in (*proposed, trick)])
    except UsageError:
        return None
    return trick


def _teacher(teacher: str) -> Iterator[Candidate]:
    if teacher:
        yield str(Spec("distill", (), {"teacher": teacher})), f"The teacher {teacher} can be distilled."
        yield str(Spec("feature_distill", (), {"teacher": teacher})), f"The teacher {teacher} can share its features."


def _imbalance(found: Audit) -> Iterator[Candidate]:
    if any(finding.kind == "imbalance" for finding in found.findings):
        ratio = f"The largest class has {found.imbalance:.0f} times as many images as the smallest"
        yield "class_weights", f"{ratio}: this gives images of rare classes more weight."
        yield "crt", f"{ratio}: this retrains the classifier with balanced classes."
        yield "balanced_sampling", f"{ratio}: this shows every class equally often."
        yield "drw", f"{ratio}: this gives rare classes more weight late in training."
        yield "logit_adjustment", f"{ratio}: this corrects the loss for class frequencies."
        yield "tau_norm", f"{ratio}: this normalises the classifier's weights."
        yield "posthoc_logit_adjustment", f"{ratio}: this corrects the scores after training, which costs nothing."
        yield "label_aware_smoothing", f"{ratio}: this softens the labels of frequent classes most."


def _doubt(found: Audit, reference: Recipe) -> Iterator[Candidate]:
    doubts = {
        "Copies of one image stand in two classes": any(finding.kind == "conflict" for finding in found.findings),
        f"{counted(len(found.label_errors or ()), 'label is', 'labels are')} doubted": bool(found.label_errors),
    }
    for why in (why for why, true in doubts.items() if true):
        if reference.weights != "none":
            yield "clean_labels", f"{why}: this leaves out training images whose labels are probably wrong."
        yield "symmetric_cross_entropy", f"{why}: with this loss labels that seem improbable pull less."
        yield "drop_hardest(share=0.1)", f"{why}: this leaves out the images that fit their labels least."


def _amount(found: Audit, reference: Recipe) -> Iterator[Candidate]:
    each = images_per_class(found, reference)
    said = f"{each:.0f} training images per class are {'few' if each < FEW_IMAGES else 'many'}"
    if each >= FEW_IMAGES:
        yield "mixup", f"{said}, enough to learn from mixed images."
        yield "random_erasing", f"{said}, enough to learn from partly erased images."
        yield "cutmix", f"{said}, enough to learn from images with patches of others."
        return
    if reference.weights != "none":
        yield (
            "freeze(until=0.1)",
            f"{said}: training only the classifier at first protects the pretrained layers.",
        )
    yield "trivialaugment", f"{said}: strong augmentation adds variety."
    if reference.weights != "none":
        yield "head_lr", f"{said}: a new classifier needs a higher learning rate than pretrained layers."
        yield "l2_sp", f"{said}: this keeps the weights near the pretrained ones."
    yield "random_erasing", f"{said}: erasing parts of images adds variety."
    if reference.weights == "none":
        yield "mixup", f"{said}: mixing images adds variety."


def _basics(found: Audit, reference: Recipe) -> Iterator[Candidate]:
    yield "cosine", "The learning rate of the reference stays high to the end; this lowers it to zero."
    yield "label_smoothing", "It costs nothing and keeps the network from being too sure."
    yield "ema", "Averaging weights costs little and reduces noise from the last steps."
    yield "warmup", "It costs nothing and protects the initial weights during the first steps."
    side = min(found.sizes.get("height", 0), found.sizes.get("width", 0))
    if found.sizes.get("channels") != 1 or side > SMALL_SIDE:
        yield "flip_tta", "It needs no training: predictions for each image and its mirror image are averaged."
    if reference.weights == "none":
        yield "cautious", "It costs little: weights move only where the optimiser's step agrees with the gradient."
        if reference.batch_size >= LARGE_BATCH:
            yield (
                "ghost_norm(images=32)",
                f"Batches of {reference.batch_size} images give batch norms little noise: this shows them 32 images at a time.",
            )


def images_per_class(found: Audit, reference: Recipe) -> float:
    """Training images for each class that has any, without those that go to a missing validation or test split."""
    rows = [row.get("train", 0) + row.get("unassigned", 0) for row in found.counts.values()]
    given = set(chain.from_iterable(found.counts.values()))
    taken = {"val": reference.val_share, "test": reference.test_share}
    share = 1 - sum(part for split, part in taken.items() if split not in given)
    return share * sum(rows) / max(1, sum(map(bool, rows)))
