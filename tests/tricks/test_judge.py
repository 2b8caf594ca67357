"""Test-time tricks against independent implementations."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import one_hot
from torchvision.transforms.v2.functional import five_crop, hflip, ten_crop

from trickbag import tricks
from trickbag.ground.errors import UsageError
from trickbag.trick import Facts, Outputs, View

ODD = 7


class Data:
    """What the engine hands over, with the digits as features and given logits."""

    def __init__(self, logits=None, y=None):
        self.facts = Facts(tuple("abc"), torch.tensor([5, 5, 5]), 10, 32, 6, 2, 0)
        self.held = logits, y
        x, labels = load_digits(return_X_y=True)
        self.x, self.labels = torch.from_numpy(x).float(), torch.from_numpy(labels)

    def features(self, split):
        assert split == "train"
        return self.x[:500], one_hot(self.labels[:500], 10).float()

    def logits(self, split):
        assert split == "val"
        return self.held


def judge(x):
    """A network whose answer depends on where things are in the image."""
    maps = x * torch.linspace(-1, 3, x.shape[-1]) + x.square()
    features = torch.cat([maps[..., 0, 0], maps[..., -1, 1], maps.mean((2, 3))], 1)
    return Outputs(maps, features, 5 * features[:, :3])


def images(side):
    return torch.randn(ODD, 2, side, side, generator=torch.Generator().manual_seed(3))


def mean_of(views):
    """Mean probabilities and features, one image at a time, so that views of different images cannot mix."""
    p = np.mean([[softmax(judge(image[None]).logits[0].double().numpy()) for image in view] for view in views], 0)
    return p, torch.stack([judge(view).features for view in views]).mean(0)


def test_flip_is_the_mean_over_an_image_and_its_own_mirror():
    x = images(6)
    found = tricks.parse("flip_tta").predict(judge)(x)
    p, features = mean_of([x, hflip(x)])
    np.testing.assert_allclose(found.logits.exp(), p, rtol=1e-4)
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.maps, (judge(x).maps + hflip(judge(hflip(x)).maps)) / 2)


@pytest.mark.parametrize(("crops", "cut"), [(5, five_crop), (10, ten_crop)])
@pytest.mark.parametrize("side", [8, 9])
def test_crops_are_those_of_torchvision_of_the_same_image(crops, cut, side):
    trick = tricks.parse(f"crop_tta(crops={crops})").fresh()
    trick.setup(None, Data())
    x = images(side)
    found = trick.predict(judge)(x)
    # Where the margin is odd, torchvision rounds the centre to the even side: cut it as we do.
    if side == 9:
        views = [v for image in (x, hflip(x))[: crops // 5] for v in (*five_crop(image, [6, 6])[:4], image[..., 1:7, 1:7])]
    else:
        views = list(cut(x, [6, 6]))
    p, features = mean_of(views)
    np.testing.assert_allclose(found.logits.exp(), p, rtol=1e-4)
    torch.testing.assert_close(found.features, features)
    assert torch.equal(found.maps, judge(views[4]).maps)


@pytest.mark.parametrize(
    ("view", "side"), [(View(256, 224), 256), (View(224, 224), 256), (View(300, 224), 300), (View(32, 32), 37)]
)
def test_crops_are_cut_from_the_whole_square(view, side):
    assert tricks.parse("crop_tta").view(view) == View(side, side)


def test_crops_are_five_or_ten():
    with pytest.raises(UsageError, match="crops"):
        tricks.parse("crop_tta(crops=7)")


@pytest.mark.parametrize("spec", ["flip_tta", "crop_tta"])
def test_means_stand_extreme_logits(spec):
    trick = tricks.parse(spec).fresh()
    if spec == "crop_tta":
        trick.setup(None, Data())
    sure = lambda x: Outputs(x, x.mean((2, 3)), torch.tensor([[1e4, 0.0, -1e4]]).expand(len(x), 3))  # noqa: E731
    torch.testing.assert_close(trick.predict(sure)(images(8)).logits[0], torch.tensor([0.0, -1e4, -2e4]))


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_calibration_finds_the_best_temperature_of_a_grid(factor):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 5))
    labels = np.array([rng.choice(5, p=softmax(row)) for row in z])
    z = z * factor

    def nll(temperature):
        return -log_softmax(z / temperature, 1)[np.arange(400), labels].mean()

    trick = tricks.parse("calibrate").fresh()
    trick.setup(None, None)
    model = object()
    fit = Data(torch.from_numpy(z).float(), one_hot(torch.from_numpy(labels), 5).float())
    assert trick.finish(model, fit, torch.Generator()) is model
    grid = np.geomspace(1 / 32, 32, 20_001)
    assert trick.temperature_ == pytest.approx(grid[np.argmin([nll(t) for t in grid])], rel=1e-3)
    assert nll(trick.temperature_) <= nll(1.0)
    assert torch.equal(trick.predict(judge)(images(6)).logits, judge(images(6)).logits / trick.temperature_)


def test_calibration_is_never_worse_than_none():
    z = torch.zeros(4, 3)  # every temperature is as good
    trick = tricks.parse("calibrate").fresh()
    trick.setup(None, None)
    assert torch.equal(trick.predict(judge)(images(6)).logits, judge(images(6)).logits)
    trick.finish(None, Data(z, one_hot(torch.tensor([0, 1, 2, 0]), 3).float()), torch.Generator())
    assert trick.temperature_ == 1.0


def as_features(x):
    return Outputs(x[..., None, None], x, torch.zeros(len(x), 10))


def neighbours(spec, data):
    trick = tricks.parse(spec).fresh()
    model = torch.nn.Linear(1, 1)
    trick.setup(model, data)
    during = trick.predict(as_features)(data.x[:3])
    assert torch.equal(during.logits, torch.zeros(3, 10))
    assert trick.finish(model, data, torch.Generator()) is model
    return trick


def test_one_neighbour_is_sklearns():
    data = Data()
    trick = neighbours("knn(k=1)", data)
    reference = KNeighborsClassifier(1, metric="cosine").fit(data.x[:500].numpy(), data.labels[:500].numpy())
    found = trick.predict(as_features)(data.x[500:901]).logits.argmax(1)
    assert torch.equal(found, torch.from_numpy(reference.predict(data.x[500:901].numpy())))


@pytest.mark.parametrize("k", [20, 10_000])
def test_votes_are_sklearns_with_the_same_weights(k):
    data = Data()
    trick = neighbours(f"knn(k={k})", data)
    reference = KNeighborsClassifier(min(k, 500), metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
    reference.fit(data.x[:500].double().numpy(), data.labels[:500].numpy())
    share = reference.predict_proba(data.x[500:531].double().numpy())
    count = min(k, 500)
    found = trick.predict(as_features)(data.x[500:531]).logits.exp()
    np.testing.assert_allclose(found, (share * count + 0.1) / (count + 1), rtol=2e-3)
    torch.testing.assert_close(found.sum(1), torch.ones(31))


def test_no_neighbours_leave_the_classifier():
    data = Data()
    trick = neighbours("knn(k=None)", data)
    assert torch.equal(trick.predict(as_features)(data.x[:3]).logits, torch.zeros(3, 10))


def test_a_bank_that_was_saved_votes_alike():
    data = Data()
    trick = neighbours("knn", data)
    again = trick.fresh()
    again.setup(torch.nn.Linear(1, 1), data)
    for name, value in trick.state().items():
        setattr(again, name, value)
    assert torch.equal(again.predict(as_features)(data.x[500:507]).logits, trick.predict(as_features)(data.x[500:507]).logits)
