"""The training loop in words: who sits at which plug point, and the parameter groups."""

from collections.abc import Iterator

from trickbag.engine.assemble import build_model
from trickbag.engine.loop import param_groups
from trickbag.recipe import Recipe
from trickbag.trick import PLUG_POINTS, Combine, having

LOOP = """\
before training
    train images                             data
    part of each image that is seen          region
    network {model}, weights {weights}       model
    parameter groups                         groups
    optimiser                                optimizer
    run state                                setup
    first weights                            prepare
for epoch in 1..{epochs}
    rows of the epoch                        order
    for each step of {batch_size} images
        images per step                      batch_size
        pixels of a side                     size
        part of each image that is shown     window
        mirrored                             mirror
        each image, in the loader            augment
        fixed versions of each image         versions
        further views of each image          views
        unlabelled images beside each        beside
        learning rate {lr:g}                 lr
        batch                                batch
        outputs = network(x)                 forward
        loss of each image                   loss
        weight of each image                 weights
        which count, by their loss           select
        added to the mean loss               penalty
        gradient                             gradient
        optimiser step                       update
        watch the weights                    after_step
    judge on validation                      eval_model
after training
    doubts about validation                  doubt
    change or measure the network            finish
    how judged images are cut                view
    network for these very images            adapt
    predict                                  predict
    sets of classes                          sets"""
DEFAULTS = {
    "region": "the whole",
    "optimizer": "SGD, Nesterov momentum {momentum:g}",
    "order": "a permutation",
    "batch_size": "{batch_size}",
    "size": "{size}",
    "window": "the middle",
    "loss": "cross-entropy with soft targets",
    "eval_model": "the live weights",
}
JOINED = {Combine.PRODUCT: " x ", Combine.SUM: " + "}


def outline(recipe: Recipe, classes: int = 10, channels: int = 3) -> Iterator[str]:
    """Lines that draw the loop of a recipe and its parameter groups.

    >>> next(outline(Recipe.load("cifar")))
    'before training'
    """
    fields = dict(recipe)
    for line in LOOP.splitlines():
        point = line.split()[-1]
        text = line.format(**fields)
        if point in PLUG_POINTS:
            joint = JOINED.get(PLUG_POINTS[point], ", then ")
            seated = joint.join(str(trick) for trick in having(recipe.tricks, point))
            text = f"{text.removesuffix(point).rstrip():<48}{seated or DEFAULTS.get(point, '-').format(**fields)}"
        yield text.rstrip()
    yield ""
    model = build_model(recipe, recipe.tricks, classes, channels, 0, "none")
    for number, group in enumerate(param_groups(model, recipe.tricks, recipe.weight_decay), 1):
        count = sum(p.numel() for p in group["params"])
        values = ", ".join(f"{k} {v:g}" for k, v in group.items() if k not in ("params", "names"))
        yield f"group {number}: {len(group['names'])} tensors, {count:,} parameters, {values}   ({group['names'][0]} ...)"
