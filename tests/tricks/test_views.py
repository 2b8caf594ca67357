"""Tricks on features, views, sizes and the weights of several runs, against independent implementations."""

import copy
import shutil

import album
import numpy as np
import pytest
import torch
from reference import norm_statistics
from safetensors.torch import save
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from timm.optim import Lookahead
from torch import nn
from torch.nn.functional import cross_entropy, interpolate, one_hot
from torch.optim.swa_utils import update_bn
from torchvision.ops import roi_align
from torchvision.transforms.v2.functional import resize

import trickbag as tb
from trickbag.engine.assemble import build_model
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import generator
from trickbag.laboratory.lab import CLASSES, SIZE, dataset, follow, loop, recipe, same, train
from trickbag.recipe import Recipe
from trickbag.runs.classifier import Classifier, Renormalised, export
from trickbag.runs.outcome import finish
from trickbag.runs.request import identity
from trickbag.trick import Batch, Facts, Outputs, View, ordered
from trickbag.tricks import parse
from trickbag.tricks.attention_crop_tta import boxes, cut
from trickbag.tricks.fixres import picked, tuned_head
from trickbag.tricks.soup import chosen

NORMAL = (0.5,) * 3, (0.25,) * 3


class Digits:
    """What the engine hands over, with the digits as features: a third of them never changes."""

    def __init__(self, images=500):
        x, labels = load_digits(return_X_y=True)
        self.x, self.labels, self.images = torch.from_numpy(x).float(), torch.from_numpy(labels), images
        self.facts = Facts(tuple("0123456789"), self.labels[:images].bincount(minlength=10), 10, 32, 8, 1, 0)

    def features(self, split):
        assert split == "train"
        return self.x[: self.images], one_hot(self.labels[: self.images], 10).float()


class Flat(nn.Module):
    """A network whose features are its pixels."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        return Outputs(x.flatten(1)[..., None, None], x.flatten(1), self.classifier(x.flatten(1)))


def transformed(spec, data, x):
    """Features of ``x`` as the trick hands them on; logits, maps and the network are left alone."""
    trick, model = parse(spec).fresh(), Flat()
    if "setup" in trick.plugs():
        trick.setup(model, data)
    plain = model(x.view(-1, 1, 8, 8))
    if "finish" in trick.plugs():
        during = trick.predict(model)(x.view(-1, 1, 8, 8))
        assert all(torch.equal(a, b) for a, b in zip(during, plain, strict=True))
        assert trick.finish(model, data, torch.Generator()) is model
    found = trick.predict(model)(x.view(-1, 1, 8, 8))
    assert torch.equal(found.logits, plain.logits)
    assert torch.equal(found.maps, plain.maps)
    return found.features


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("images", "dims"), [(500, 12), (500, 50), (40, 30)])
def test_components_are_sklearns_signs_included(images, dims, whiten):
    data = Digits(images)
    peer = PCA(dims, whiten=whiten, svd_solver="full").fit(data.x[:images].double().numpy())
    found = transformed(f"pca_features(dims={dims}, whiten={whiten})", data, data.x[700:731])
    np.testing.assert_allclose(found.detach(), peer.transform(data.x[700:731].double().numpy()), rtol=1e-4, atol=2e-4)


def test_directions_in_which_nothing_differs_are_not_blown_up():
    data = Digits()
    found = transformed("pca_features(dims=64, whiten=True)", data, data.x[:500])
    spread = found.std(0)
    rank = int(np.linalg.matrix_rank(data.x[:500].double().numpy() - data.x[:500].double().numpy().mean(0)))
    assert rank < 64
    torch.testing.assert_close(spread[:rank], torch.ones(rank), rtol=1e-3, atol=1e-3)
    assert not found[:, rank:].any()


@pytest.mark.parametrize(("images", "most"), [(500, 64), (40, 40)])
def test_more_components_than_features_or_images_are_refused_before_training(images, most):
    trick = parse(f"pca_features(dims={most + 1})").fresh()
    with pytest.raises(UsageError, match=rf"dims={most}\) or fewer"):
        trick.setup(Flat(), Digits(images))
    parse(f"pca_features(dims={most})").fresh().setup(Flat(), Digits(images))


def test_centred_features_are_sklearns():
    data = Digits()
    peer = StandardScaler(with_std=False).fit(data.x[:500].numpy())
    found = transformed("center_features", data, data.x[700:731])
    np.testing.assert_allclose(found.detach(), peer.transform(data.x[700:731].numpy()), atol=1e-5)


def test_features_of_length_one_are_sklearns():
    data = Digits()
    x = torch.cat([data.x[700:731], torch.zeros(1, 64)])
    np.testing.assert_allclose(transformed("l2_features", data, x).detach(), normalize(x.numpy()), atol=1e-6)


def test_features_are_reduced_and_centred_before_neighbours_and_scaled_before_means():
    for names in (["center_features", "pca_features", "knn"], ["center_features", "pca_features", "l2_features", "ncm"]):
        assert [trick.name() for trick in ordered([parse(name) for name in reversed(names)])] == names


def test_neighbours_see_the_components():
    """From pixels to votes, with the engine in between: a pipeline of sklearn's on the same network's features."""
    made = loop(recipe("pca_features(dims=5, whiten=True)", "knn(k=1)", epochs=1))
    follow(made)
    finished = finish(made, made.recipe)
    made.judge.see(finished.model)
    x, y = (values.numpy() for values in made.judge.features("train"))
    seen = made.judge.outputs(finished.model, "test")[0].numpy()
    pca = PCA(5, whiten=True).fit(x)
    peer = KNeighborsClassifier(1, metric="cosine").fit(pca.transform(x), y.argmax(1))
    found = made.judge.outputs(finished.model, "test", finished.tricks)[1].argmax(1)
    assert np.array_equal(found, peer.predict(pca.transform(seen)))


def judge(x):
    """A network whose answer depends on where things are in the image, and on its size."""
    maps = x * torch.linspace(-1, 3, x.shape[-1]) + x.square()
    features = torch.cat([maps[..., 0, 0], maps[..., -1, 1], maps.mean((2, 3)) + x.shape[-1] / 10], 1)
    return Outputs(maps, features, 5 * features[:, :3])


def pictures(side, count=7, channels=2):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sizes", [(1.0, 1.125, 1.25), (0.5, 1.5), (0.75,)])
def test_scales_are_those_of_torchvision(sizes):
    trick = parse(f"scale_tta{sizes if len(sizes) > 1 else f'({sizes[0]})'}")
    view = trick.view(View(36, 32))
    largest = max(1.0, *sizes)
    assert view == View(round(36 * largest), round(32 * largest))
    x = pictures(view.crop)
    views = [resize(x, [round(32 * share)] * 2, antialias=True) for share in sizes]
    found = trick.predict(judge)(x)
    p = np.mean([[softmax(judge(image[None]).logits[0].double().numpy()) for image in images] for images in views], 0)
    np.testing.assert_allclose(found.logits.exp(), p, rtol=1e-4)
    torch.testing.assert_close(found.features, torch.stack([judge(images).features for images in views]).mean(0))
    torch.testing.assert_close(found.maps, judge(views[0]).maps)


@pytest.mark.parametrize("spec", ["scale_tta", "fixres(test_size=40)", "fixres(test_size=40, tune='none')"])
def test_other_sizes_are_refused_by_networks_of_one_size(spec):
    with pytest.raises(UsageError, match=rf"{parse(spec).name()}.* 32 x 32 pixels only"):
        loop(recipe(spec, model="vit_tiny_patch16_224", size=32))


@pytest.mark.parametrize("sizes", ["(0.4)", "(1.0, 2.1)", "('large')", "(sizes=())"])
def test_scales_out_of_bounds_are_refused(sizes):
    with pytest.raises(UsageError, match=r"scale_tta.*sizes"):
        parse(f"scale_tta{sizes}")


def test_means_over_scales_stand_extreme_logits():
    sure = lambda x: Outputs(x, x.mean((2, 3)), torch.tensor([[1e4, 0.0, -1e4]]).expand(len(x), 3))  # noqa: E731
    trick = parse("scale_tta")
    torch.testing.assert_close(trick.predict(sure)(pictures(20)).logits[0], torch.tensor([0.0, -1e4, -2e4]))


def box_of(activation, share):
    """The definition, place by place."""
    positive = np.maximum(activation, 0)
    down, across = np.nonzero(positive >= share * positive.max())
    return [across.min(), down.min(), across.max() + 1, down.max() + 1]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_boxes_hold_all_that_is_bright(share):
    activation = pictures(9, 40, 1)[:, 0, :, :7] ** 3
    activation[0] = -1 - activation[0].abs()  # nothing above 0: the whole image
    activation[1], activation[1, 8, 6] = 0.0, 1.0  # one place, in a corner
    found = boxes(activation, share).tolist()
    assert found == [box_of(one, share) for one in activation.double().numpy()]
    assert found[:2] == [[0, 0, 7, 9], [6, 8, 7, 9]]


def test_the_cut_is_that_of_roi_align():
    x = pictures(9)[..., :7]
    box = torch.tensor([[0, 0, 7, 9], [6, 8, 7, 9], [1, 2, 5, 4], [3, 0, 4, 9], [0, 4, 7, 5], [2, 2, 6, 8], [0, 0, 1, 1]])
    rows = torch.cat([torch.arange(7.0)[:, None], box.float()], 1)
    reference = roi_align(x, rows, (9, 7), sampling_ratio=1, aligned=True)
    torch.testing.assert_close(cut(x, box), reference, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cut(x, box)[0], x[0])


def test_the_second_look_is_at_the_class_activation_map(trained):
    """Image by image, by the classifier of the network that is judged, not of the one that was set up."""
    made = loop(recipe("attention_crop_tta(share=0.6)"))
    trick, model = made.tricks[0], copy.deepcopy(trained.loop.model).eval()
    x = next(iter(made.judge.judged("val"))).x
    with torch.no_grad():
        before = trick.predict(model)(x)
        assert all(torch.equal(a, b) for a, b in zip(before, model(x), strict=True))
        assert trick.finish(model, made.judge, torch.Generator()) is model
        found = trick.predict(model)(x)
        cuts = set()
        for row, image in enumerate(x):
            first = model(image[None])
            weight = model.classifier.weight[int(first.logits.argmax())]
            activation = (weight[:, None, None] * first.maps[0]).sum(0)
            # The mean of the map is the class's logit but for the bias: Zhou et al., section 2.
            logit = float(activation.mean() + model.classifier.bias[int(first.logits.argmax())])
            assert logit == pytest.approx(float(first.logits.max()), rel=1e-4, abs=1e-4)
            large = interpolate(activation[None, None], (SIZE, SIZE), mode="bilinear")[0, 0]
            box = box_of(large.numpy(), 0.6)
            cuts.add(tuple(box))
            region = roi_align(image[None], torch.tensor([[0.0, *box]]), (SIZE, SIZE), sampling_ratio=1, aligned=True)
            second = model(region)
            p = (first.logits.double().softmax(1) + second.logits.double().softmax(1)) / 2
            np.testing.assert_allclose(found.logits[row].exp(), p[0], rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(found.features[row], ((first.features + second.features) / 2)[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.maps, model(x).maps)
    assert len(cuts) > 3


@pytest.mark.parametrize(("model", "size"), [("mobilenetv3_small_050", 64), ("resnet18", 32)])
def test_attention_needs_a_map_that_the_classifier_fits(model, size):
    with pytest.raises(UsageError, match="attention_crop_tta lays the weights"):
        loop(recipe("attention_crop_tta", model=model, size=size))


@pytest.fixture(scope="module")
def trained():
    """A training without tricks."""
    return train(epochs=3)


def test_the_view_of_a_larger_size_shows_the_same_part():
    trick = parse("fixres(test_size=288)")
    assert trick.view(View(256, 224)) == View(329, 288)
    assert trick.view(View(32, 32)) == View(288, 288)


def tuned(trained, spec):
    """The trained network after a trick's finish."""
    trick, judge = parse(spec), trained.loop.judge
    return trick.finish(copy.deepcopy(trained.loop.model), judge, generator(0, "test"))


def changes(a, b):
    return {name for name, value in a.state_dict().items() if not torch.equal(value, b.state_dict()[name])}


def test_fixres_tunes_what_it_is_told_to(trained):
    live = trained.loop.model
    buffers = {name for name, _ in live.named_buffers()}
    assert not changes(live, tuned(trained, "fixres(test_size=20, tune='none')"))
    assert changes(live, tuned(trained, "fixres(test_size=20, tune='norm')")) == buffers
    both = tuned(trained, "fixres(test_size=20)")
    assert changes(live, both) == buffers | set(live.head_names)
    assert not both.training
    assert same(both.state_dict(), tuned(trained, "fixres(test_size=20)").state_dict())
    assert changes(both, tuned(trained, "fixres(test_size=24)")) == buffers - {
        name for name in buffers if name.endswith("num_batches_tracked")
    } | set(live.head_names)


def test_fixres_estimates_norms_over_images_in_random_order(trained):
    made = tuned(trained, "fixres(test_size=20, tune='norm')")
    views = torch.cat([batch.x for batch in trained.loop.judge.judged("train", 20)])
    assert views.shape[-1] == 20
    order = torch.randperm(len(views), generator=generator(0, "test"))
    state, parts = made.state_dict(), views[order].tensor_split(2)
    assert len(parts[0]) != len(parts[1])
    for name, (means, variances) in norm_statistics(copy.deepcopy(trained.loop.model), parts).items():
        torch.testing.assert_close(state[f"{name}.running_mean"].double(), means, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state[f"{name}.running_var"].double(), variances, rtol=1e-4, atol=1e-5)
    reference = copy.deepcopy(trained.loop.model)
    # The judged training images come class by class: in that order the classes' difference would be missing from the spread.
    with torch.no_grad():
        update_bn([views], reference)
    for name, _ in reference.named_buffers():
        if name.endswith("bn1.running_var") and "layer" not in name:
            torch.testing.assert_close(made.state_dict()[name], reference.state_dict()[name], rtol=0.05, atol=0)


def test_rows_are_picked_in_their_own_order():
    batches = [Batch(part[:, None].float(), part, part) for part in torch.arange(50).split(8)]
    rows = torch.tensor([41, 3, 8, 0, 49, 7])
    assert torch.equal(picked(iter(batches), rows)[:, 0], rows.float())


def test_the_tuned_head_is_sgd_from_the_trained_one():
    """Against torch's own optimiser, autograd and schedule, on the same draws, within rounding of float64."""
    rng = torch.Generator().manual_seed(1)
    x = 7 + torch.randn(50, 4, generator=rng, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0, 4.0])
    y = torch.randn(50, 3, generator=rng, dtype=torch.float64).softmax(1)
    start = torch.randn(3, 4, generator=rng, dtype=torch.float64), torch.randn(3, generator=rng, dtype=torch.float64)
    centred = (x - x.mean(0)) / (x - x.mean(0)).square().sum(1).mean().sqrt()
    head = nn.Linear(4, 3, dtype=torch.float64)
    with torch.no_grad():  # the same logits from the other inputs
        head.weight.copy_(start[0] * (x - x.mean(0)).square().sum(1).mean().sqrt())
        head.bias.copy_(start[1] + start[0] @ x.mean(0))
        torch.testing.assert_close(head(centred), x @ start[0].T + start[1])
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0, momentum=0.9)
    steps = 10 * 4
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = torch.Generator().manual_seed(5)
    for _ in range(10):
        for rows in torch.randperm(50, generator=rng).split(16):
            optimizer.zero_grad()
            cross_entropy(head(centred[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    weight, bias = tuned_head(x, y, *start, 16, torch.Generator().manual_seed(5))
    torch.testing.assert_close(x @ weight.T + bias, head(centred).detach(), rtol=1e-9, atol=1e-9)


def test_fixres_refuses_a_classifier_that_it_cannot_tune():
    class Odd(nn.Module):
        classifier = nn.Identity()

    with pytest.raises(UsageError, match=r"fixres tunes a linear layer.*Identity.*tune='norm'"):
        parse("fixres(test_size=20)").fresh().setup(Odd(), None)
    parse("fixres(test_size=20, tune='norm')").fresh().setup(Odd(), None)


def network(seed, model="cifar_resnet8"):
    """An untrained network of the laboratory."""
    return build_model(recipe(model=model), (), len(CLASSES), 3, seed, "none").eval().requires_grad_(False)


def other_run(model, order=(0, 1, 2), std=(0.25,) * 3):
    """A network as the engine hands over that of another run."""
    return Renormalised(copy.deepcopy(model), (NORMAL[0], std), NORMAL, order)


def with_runs(made, **networks):
    made.judge.network = networks.__getitem__
    return made.judge


def right(model, judge):
    """Validation images that a network is right on, by the engine's own scores."""
    return round(judge.score(model).top1 * len(judge.loaders["val"].labels))


def recipe_1(accuracies, accuracy_of):
    """Wortsman et al., recipe 1, as printed."""
    by_accuracy = sorted(range(len(accuracies)), key=lambda i: accuracies[i], reverse=True)
    ingredients = []
    for i in by_accuracy:
        if not ingredients or accuracy_of([*ingredients, i]) >= accuracy_of(ingredients):
            ingredients = [*ingredients, i]
    return ingredients


def test_the_greedy_choice_is_the_papers():
    rng = np.random.default_rng(0)
    for _ in range(200):
        alone = rng.integers(0, 6, 5).tolist()
        table = {}

        def accuracy_of(runs, alone=alone, table=table):
            key = tuple(runs)
            return alone[runs[0]] if len(runs) == 1 else table.setdefault(key, int(rng.integers(0, 8)))

        assert chosen(alone, accuracy_of) == recipe_1(alone, accuracy_of)


def soup_of(spec, own, made, **networks):
    trick = parse(spec).fresh()
    judge = with_runs(made, **networks)
    trick.setup(made.model, judge)
    assert not trick.state()
    return trick.finish(copy.deepcopy(own), judge, torch.Generator())


def test_a_soup_of_all_is_the_mean_with_norms_estimated_anew(trained):
    second, third = train(seed=1).loop.model, train(seed=2).loop.model
    own = trained.loop.model
    made = soup_of("soup('b', 'c', greedy=False)", own, trained.loop, b=other_run(second), c=third)
    parts = [dict(model.named_parameters()) for model in (own, second, third)]
    for name, value in made.named_parameters():
        mean = np.mean([part[name].detach().double().numpy() for part in parts], 0)
        np.testing.assert_allclose(value.detach(), mean, rtol=1e-5, atol=1e-6)
    assert not made.training
    batches = [batch.x for batch in trained.loop.judge.batches()]
    assert len({len(x) for x in batches}) > 1
    state = made.state_dict()
    for name, (means, variances) in norm_statistics(copy.deepcopy(made), batches).items():
        torch.testing.assert_close(state[f"{name}.running_mean"].double(), means, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state[f"{name}.running_var"].double(), variances, rtol=1e-4, atol=1e-5)


def test_statistics_that_training_left_alone_are_averaged_with_the_weights():
    own, other = network(0), network(1)
    for place, model in enumerate((own, other)):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.fill_(place)
    made = soup_of("soup('b', greedy=False)", own, loop(recipe()), b=other)
    means = [module.running_mean for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(bool((mean == 0.5).all()) for mean in means)


def test_a_greedy_soup_keeps_the_better_network_and_leaves_the_worse_out(trained):
    good, bad = trained.loop.model, network(7)
    judge = trained.loop.judge
    assert right(good, judge) > right(bad, judge) + 2
    kept = soup_of("soup('bad')", good, trained.loop, bad=bad)
    assert right(kept, judge) >= right(good, judge)
    taken = soup_of("soup('good', 'bad')", bad, trained.loop, good=other_run(good), bad=bad)
    assert right(taken, judge) >= right(good, judge)


def test_a_greedy_soup_of_one_is_that_network_bit_for_bit(trained):
    """Against a network that is never right the mean loses, and what is left is untouched, running statistics too."""
    bad = copy.deepcopy(trained.loop.model)
    with torch.no_grad():
        bad.classifier.weight.mul_(-30)
        bad.classifier.bias.mul_(-30)
    judge = trained.loop.judge
    assert right(bad, judge) < right(trained.loop.model, judge)
    kept = soup_of("soup('bad')", trained.loop.model, trained.loop, bad=bad)
    assert same(kept.state_dict(), trained.loop.model.state_dict())
    kept = soup_of("soup('good', 'bad')", bad, trained.loop, good=other_run(trained.loop.model), bad=bad)
    assert same(kept.state_dict(), trained.loop.model.state_dict())


@pytest.mark.parametrize(
    "make",
    [
        lambda own: network(0, "cifar_resnet20"),
        lambda own: network(0, "resnet18"),
        lambda own: other_run(own, order=(1, 0, 2)),
        lambda own: other_run(own, std=(0.25, 0.25, 0.3)),
    ],
)
def test_a_soup_refuses_weights_that_mean_something_else_before_training(trained, make):
    judge = with_runs(trained.loop, b=make(trained.loop.model))
    with pytest.raises(UsageError, match="weights of b mean something else"):
        parse("soup('b')").fresh().setup(trained.loop.model, judge)


def test_a_soup_comes_after_a_training_that_had_more_beside_the_network():
    """As in a study, where the training is shared with runs that make no soup of it."""
    tricks = "supervised_contrastive", "soup('b', greedy=False)"
    found = train(tricks[0]).loop
    model, chosen = finish(found, recipe(*tricks))
    assert torch.equal(found.judge.outputs(model, "test", chosen)[1], train(*tricks).logits)


@pytest.mark.parametrize("name", ["soup", "ensemble"])
@pytest.mark.parametrize("runs", ["", "('self')", "('a', 'self')", "(7)"])
def test_other_runs_are_named(name, runs):
    with pytest.raises(UsageError, match="runs"):
        parse(f"{name}{runs}")


def test_an_ensemble_is_the_mean_probability_of_all(trained):
    own, others = trained.loop.model.eval(), [other_run(network(1), (2, 0, 1), (0.3,) * 3), network(2, "cifar_resnet20")]
    trick = parse("ensemble('b', 'c')").fresh()
    trick.setup(own, with_runs(trained.loop, b=others[0], c=others[1]))
    x = next(iter(trained.loop.judge.judged("val"))).x
    with torch.no_grad():
        found, alone = trick.predict(own)(x), own(x)
        raw = network(1)((x * 0.25) / 0.3).logits[:, [2, 0, 1]]
        p = np.mean([softmax(z.double().numpy(), 1) for z in (alone.logits, raw, others[1](x).logits)], 0)
    np.testing.assert_allclose(found.logits.exp(), p, rtol=1e-4)
    assert torch.equal(found.features, alone.features)
    assert torch.equal(found.maps, alone.maps)
    assert not trick.state()


def test_an_ensemble_refuses_a_network_of_another_size_before_training(trained):
    fixed = build_model(recipe(model="vit_tiny_patch16_224", size=32), (), 3, 3, 0, "none").eval()
    trick = parse("ensemble('b')").fresh()
    with pytest.raises(UsageError, match="built for 32 x 32 pixels"):
        trick.setup(trained.loop.model, with_runs(trained.loop, b=fixed))


def test_means_over_networks_stand_extreme_logits(trained):
    class Sure(nn.Module):
        def forward(self, x):
            return Outputs(x, x, torch.tensor([[1e4, 0.0, -1e4]]).expand(len(x), 3))

    trick = parse("ensemble('b')").fresh()
    trick.setup(trained.loop.model, with_runs(trained.loop, b=Sure()))
    torch.testing.assert_close(trick.predict(Sure())(torch.zeros(2, 3)).logits[0], torch.tensor([0.0, -1e4, -2e4]))


def descend(model, x, y, steps, make):
    """Some steps on one batch after another; ``make`` gives what does a step."""
    step = make(model)
    for i in range(steps):
        model.zero_grad()
        cross_entropy(model(x[i % 5 :: 5]), y[i % 5 :: 5]).backward()
        step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize(("every", "share", "steps"), [(5, 0.5, 33), (6, 0.8, 30), (1, 0.3, 9), (4, 1.0, 12)])
def test_looking_back_is_timms_over_sgd(every, share, steps):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=rng, dtype=torch.float64)
    y = torch.randint(3, (40,), generator=rng)
    start = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True)

    def ours(model):
        trick, optimizer = parse(f"lookahead(every={every}, share={share})").fresh(), sgd(model)
        trick.setup(copy.deepcopy(model), None)

        def step():
            optimizer.step()
            trick.update(model, 0.5)

        return step

    found = descend(copy.deepcopy(start), x, y, steps, ours)
    peer = descend(copy.deepcopy(start), x, y, steps, lambda model: Lookahead(sgd(model), alpha=share, k=every).step)
    plain = descend(copy.deepcopy(start), x, y, steps, lambda model: sgd(model).step)
    torch.testing.assert_close(found, peer, rtol=1e-10, atol=1e-12)
    assert torch.equal(found, plain) == (share == 1.0)


def test_the_slow_weights_take_no_part_in_the_gradient_and_leave_buffers_alone(trained):
    trick, model = parse("lookahead(every=1)").fresh(), copy.deepcopy(trained.loop.model)
    trick.setup(model, None)
    assert not any(p.requires_grad for p in trick.slow_.parameters())
    before = {name: value.clone() for name, value in model.named_buffers()}
    for t in (0.1, 0.2):
        trick.update(model, t)
    assert same(before, dict(model.named_buffers()))
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "specs",
    [
        ("attention_crop_tta(share=0.5)", "fixres(test_size=20)", "knn", "pca_features(dims=5)"),
        ("center_features", "l2_features", "ncm", "scale_tta"),
    ],
)
def test_a_loaded_run_judges_as_the_trained_one_did(specs, tmp_path):
    made = loop(recipe(*specs))
    follow(made)
    finished = finish(made, made.recipe)
    tensors, card = export(finished.model, finished.tricks, made.recipe, CLASSES, NORMAL, 20)
    store.write(tmp_path / "model.safetensors", save({name: value.contiguous() for name, value in tensors.items()}))
    store.write(tmp_path / "model.json", store.to_json(card.plain()))
    store.seal(tmp_path)
    data, pixels = dataset()
    again = Classifier.load(tmp_path)
    test = [image for image, split in zip(pixels, data.images.splits, strict=True) if split == "test"]
    found = torch.cat([outputs.logits for outputs in again.outputs(test)])
    torch.testing.assert_close(found, made.judge.outputs(finished.model, "test", finished.tricks)[1])


def test_an_ensemble_is_loaded_with_its_other_networks_and_says_when_they_are_gone(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    album.fill(tmp_path / "photos", {"a": 0, "b": 1}, 16)
    recipe = str(album.recipe_file(tmp_path / "tiny.toml"))
    tb.train("photos", recipe, out="first", seed=1)
    made = tb.train("photos", recipe, with_=["ensemble('first')"], out="second")
    with np.load(made.folder / "predictions.npz") as arrays:
        stored = torch.from_numpy(arrays["test_logits"]).softmax(1).amax(1)
    told = torch.tensor([max(p.probabilities) for p in tb.load("second").predict(["photos"])])
    assert ((stored[:, None] - told).abs().amin(1) < 1e-4).all()
    shutil.rmtree("first")
    with pytest.raises(UsageError, match="first holds no trained classifier"):
        tb.load("second")


def test_a_run_that_another_asks_for_counts_by_its_content(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    album.fill(tmp_path / "photos", {"a": 0, "b": 1}, 16)
    recipe = str(album.recipe_file(tmp_path / "tiny.toml"))
    tb.train("photos", recipe, out="first", seed=1)
    asked = Recipe.load(recipe).edit(["soup('first')"])
    before = identity(asked)
    shutil.rmtree("first")
    tb.train("photos", recipe, out="first", seed=2)
    assert identity(asked) != before
