"""Where a network looks: on planted objects, against the class activation map, and from the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from album import fill, recipe_file
from PIL import Image
from torch.nn.functional import cross_entropy

from trickbag.data.reading import read
from trickbag.engine.gradcam import grad_cam
from trickbag.ground.errors import UsageError
from trickbag.models import networks

SIDE, OBJECT = 32, 12
KINDS = 3


def planted(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise with one textured square each: images [N, 1, 32, 32], labels [N], the squares' upper left corners [N, 2]."""
    rng = np.random.default_rng(seed)
    labels, corners = rng.integers(0, KINDS, count), rng.integers(0, SIDE - OBJECT + 1, (count, 2))
    y, x = np.mgrid[:OBJECT, :OBJECT]
    images = rng.normal(0, 1, (count, 1, SIDE, SIDE)).astype(np.float32)
    for image, label, (top, left) in zip(images, labels, corners, strict=True):
        image[0, top : top + OBJECT, left : left + OBJECT] += 2 * np.sin((x, y, x + y)[label] * 1.5)
    return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(corners)


@pytest.fixture(scope="module")
def trained() -> networks.Net:
    torch.manual_seed(0)
    model = networks.build("cifar_resnet8", KINDS, 1, SIDE)
    x, y, _ = planted(600, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]).logits, y[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def test_the_maximum_lies_on_the_planted_object(trained: networks.Net) -> None:
    x, y, corners = planted(300, 1)
    maps, outputs = grad_cam(trained, x)
    assert (outputs.logits.argmax(1) == y).float().mean() > 0.95
    peak = maps.flatten(1).argmax(1)
    place = torch.stack([peak // SIDE, peak % SIDE], 1)
    inside = ((place >= corners) & (place < corners + OBJECT)).all(1)
    assert inside.float().mean() >= 0.95
    assert maps.amin() >= 0
    torch.testing.assert_close(maps.amax((1, 2)), torch.ones(300), atol=0.15, rtol=0)  # enlarging lowers a peak


def test_with_a_mean_and_a_linear_classifier_it_is_the_class_activation_map(trained: networks.Net) -> None:
    """Zhou et al., CVPR 2016, eq. 2."""
    x, _, _ = planted(4, 2)
    classes = torch.tensor([0, 1, 2, 0])
    maps, outputs = grad_cam(trained, x, classes)
    cam = torch.einsum("bd,bdhw->bhw", trained.classifier.weight[classes], outputs.maps).relu()
    cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)
    enlarged = torch.nn.functional.interpolate(cam[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, enlarged)
    assert not torch.allclose(maps, grad_cam(trained, x, (classes + 1) % KINDS)[0])


def test_a_network_without_maps_says_so() -> None:
    model = networks.build("vit_tiny_patch16_224", 3, size=32)
    with pytest.raises(UsageError, match=r"vit_tiny_patch16_224 has no feature maps to look at"):
        grad_cam(model, torch.zeros(1, 3, 32, 32))


def test_explain_draws_a_picture_for_each_image(tmp_path: Path, ask, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), {"a$b": 0, "b": 1}, 12)
    recipe_file(Path("tiny.toml"))
    assert ask("train", "photos", "--recipe", "tiny.toml", "--out", "run").code == 0
    told = ask("explain", "run", "photos/a$b", "--out", "drawn")
    assert told.code == 0, told.err
    pictures = sorted(Path("drawn").glob("*.png"))
    assert len(pictures) == 12
    assert told.out.splitlines()[0].startswith(str(pictures[0]))
    with Image.open(pictures[0]) as image:
        assert image.size[0] > 600
    known = read("photos")
    assert ask("explain", "run", "photos/b", "--out", "photos/explained").code == 0
    assert read("photos").classes == known.classes
    assert read("photos").paths == known.paths, "its pictures are no data"
    before = read("photos").hashes
    used = ask("explain", "run", "photos/b/00.png", "--out", "photos/b")
    assert (used.code, used.err) == (
        2,
        "trickbag: --out photos/b holds other files, for example '00.png'. Name a folder of its own.\n",
    )
    assert read("photos").hashes == before
    assert ask("explain", "run", "photos/b/00.png", "--out", "drawn").code == 0, "its own pictures may go"
    named = ask("explain", "run", "photos/b/00.png", "--class", "b", "--out", "one")
    assert ": b, " in named.out
    assert ask("explain", "run", "photos/b", "--class", "zebra").err.startswith(
        "trickbag: the run does not know the class 'zebra'"
    )
