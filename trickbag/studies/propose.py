"""Which tricks are worth a study on this data set: a few from the bag, each with the reason."""

from collections.abc import Iterator
from itertools import chain, zip_longest

from trickbag.data.audit import Audit
from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec
from trickbag.recipe import Recipe
from trickbag.trick import EVALUATION, Trick
from trickbag.tricks import names, parse

FEW_IMAGES = 60
"""Training images per class below which strong augmentation and frozen layers come first, as in the recipe auto."""
SMALL_SIDE = 64
"""Shorter side in pixels up to which grey images may be letters or digits, which have no mirror image."""
Candidate = tuple[str, str]
"""A trick's spelling and the reason for it."""


def propose(found: Audit, reference: Recipe, teacher: str = "", most: int = 6) -> list[tuple[Trick, str]]:
    """At most ``most`` tricks to try on this data set, each with a reason in a sentence; 6 fit a two-sided design.

    The groups of candidates take turns: distillation from ``teacher`` (a run's folder or a recipe; empty for none), what
    suits unequal classes, what suits many or few images, and what nearly always suits. A trick that is not in the bag, that the
    reference holds, that conflicts with it or with one proposed before, or that could not act is passed over.
    """
    proposed: dict[Trick, str] = {}
    groups = (_teacher(teacher), _imbalance(found), _amount(found, reference), _basics(found))
    for candidate in chain.from_iterable(zip_longest(*groups)):
        if candidate and len(proposed) < most and (trick := _fitting(candidate[0], reference, proposed)):
            proposed[trick] = candidate[1]
    return list(proposed.items())


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
        yield str(Spec("distill", (), {"teacher": teacher})), f"There is a teacher to learn from: {teacher}."


def _imbalance(found: Audit) -> Iterator[Candidate]:
    if any(finding.kind == "imbalance" for finding in found.findings):
        ratio = f"The largest class has {found.imbalance:.0f} times as many images as the smallest"
        yield "class_weights", f"{ratio}: images of rare classes count more."
        yield "crt", f"{ratio}: the classifier is trained again on equal classes."
        yield "balanced_sampling", f"{ratio}: every class is shown equally often."
        yield "drw", f"{ratio}: rare classes count more late in training."
        yield "logit_adjustment", f"{ratio}: the loss takes account of how rare a class is."
        yield "tau_norm", f"{ratio}: the classifier's weights are made equally long."


def _amount(found: Audit, reference: Recipe) -> Iterator[Candidate]:
    each = images_per_class(found, reference)
    said = f"{each:.0f} training images per class are {'few' if each < FEW_IMAGES else 'many'}"
    if each >= FEW_IMAGES:
        yield "mixup", f"{said}: a network can learn from mixed images too."
        yield "random_erasing", f"{said}: a network can learn to do without a part of each image."
        yield "cutmix", f"{said}: a network can learn from images with a part of another."
        return
    if reference.weights != "none":
        yield (
            "freeze(until=0.1)",
            f"{said}: only the classifier learns at first, so that the pretrained layers keep what they know.",
        )
    yield "trivialaugment", f"{said}: strong augmentation makes more of each."
    if reference.weights != "none":
        yield "head_lr", f"{said}: the fresh classifier learns faster than the pretrained layers."
    yield "random_erasing", f"{said}: an image with a part erased is another image."
    if reference.weights == "none":
        yield "mixup", f"{said}: mixed images are new images."


def _basics(found: Audit) -> Iterator[Candidate]:
    yield "cosine", "The reference's learning rate stays high to the end; this lowers it to zero."
    yield "label_smoothing", "It costs nothing and keeps the network from being too sure of labels that may be wrong."
    yield "ema", "Averaged weights cost little and make the result depend less on the moment of the end."
    yield "warmup", "It costs nothing, and the first steps do less harm to the weights that training starts from."
    side = min(found.sizes.get("height", 0), found.sizes.get("width", 0))
    if found.sizes.get("channels") != 1 or side > SMALL_SIDE:
        yield "flip_tta", "It needs no training: each image is judged together with its mirror image."


def images_per_class(found: Audit, reference: Recipe) -> float:
    """Training images for each class that has any, without those that go to a missing validation or test split."""
    rows = [row.get("train", 0) + row.get("unassigned", 0) for row in found.counts.values()]
    given = set(chain.from_iterable(found.counts.values()))
    taken = {"val": reference.val_share, "test": reference.test_share}
    share = 1 - sum(part for split, part in taken.items() if split not in given)
    return share * sum(rows) / max(1, sum(map(bool, rows)))
