"""timm models as tricks see them: last feature maps, features and logits of one pass, and weights from files or the hub."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import huggingface_hub
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import group_parameters
from torch import Tensor, nn

import trickbag.models.cifar_resnet  # noqa: F401  makes its networks known to timm
from trickbag import plugins
from trickbag.ground.errors import UsageError
from trickbag.trick import Outputs

Shapes = Mapping[str, Sequence[int]]
HUB_SECONDS = 5.0
"""How long the hub may take to answer before it counts as unreachable."""


class Net(nn.Module):
    """A timm classification model whose forward returns ``Outputs``; ``net`` keeps timm's names for export.

    ``maps`` are the patch tokens where the model works on tokens, and the features where it has no map of its own.
    ``features`` are what the classifier sees: of several classifiers (distilled models), their inputs side by side.
    Raises UsageError where the model cannot read images [channels, size, size].
    """

    def __init__(self, net: nn.Module, name: str, classes: int, channels: int, size: int, pretrained: bool) -> None:
        super().__init__()
        self.net, self.name, self.pretrained = net, name, pretrained
        self.companions = nn.ModuleDict()
        self.shape = (channels, size, size)
        cfg = cast(dict[str, Any], net.pretrained_cfg)
        native = cfg.get("test_input_size") or cfg["input_size"]
        self.size: int = native[-1]
        """Pixels of a side of the images on which the model's own weights are judged."""
        self.crop_share: float = (cfg.get("test_input_size") and cfg.get("test_crop_pct")) or cfg["crop_pct"]
        """The side that is cut from a judged image, as a share of the resized image's shorter side."""
        self.mean, self.std = (per_channel(cfg[n], channels) for n in ("mean", "std"))
        self.fixed_size = size if cfg.get("fixed_input_size") else 0
        """The one size in pixels that the model reads; 0 where it reads any."""
        self._heads = heads_of(net)
        self._plain = self._direct = False
        self._probe(classes, torch.linspace(-1, 1, channels * size * size).reshape(1, channels, size, size))

    @property
    def separable(self) -> bool:
        """Whether the logits are what the classifier makes of the features, and of nothing else."""
        return self._direct

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> what the classifier of a separable network sees [B, D], without asking it."""
        found: Tensor = self.net.forward_head(self.net.forward_features(x), pre_logits=True)  # type: ignore[operator]
        return found

    @property
    def classifier(self) -> nn.Module:
        """The last layer, features [B, D] -> logits [B, K]; may be replaced. UsageError where logits are made otherwise."""
        return self.net.get_submodule(self._head)

    @classifier.setter
    def classifier(self, module: nn.Module) -> None:
        self.net.set_submodule(self._head, module)

    @property
    def _head(self) -> str:
        if not self._plain:
            raise UsageError(f"{self.name} has no single linear classifier. Choose another model, or remove the trick.")
        return self._heads[0]

    @property
    def pool(self) -> nn.Module:
        """The pooling of timm's or that in its place: maps [B, D, h, w] -> [B, D]. UsageError where the network has none."""
        found = self.net.get_submodule(self._pool)
        return found.inner if isinstance(found, Pooling) else found

    @pool.setter
    def pool(self, module: nn.Module) -> None:
        kept = self.net.get_submodule(self._pool)(torch.zeros(1, 1, 2, 2)).ndim == 4
        self.net.set_submodule(self._pool, Pooling(module, kept, self._channels_last))

    @property
    def pooled(self) -> int:
        """Channels of the maps that the pooling sees: more than the last map has where the head widens it."""
        seen: list[torch.Size] = []
        hook = self.net.get_submodule(self._pool).register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
        training = self.training
        with torch.no_grad():
            self.eval()(torch.zeros(1, *self.shape))
        self.train(training)
        hook.remove()
        return seen[0][-1 if self._channels_last else 1]

    @property
    def _channels_last(self) -> bool:
        return getattr(self.net, "output_fmt", "NCHW") == "NHWC"

    @property
    def _pool(self) -> str:
        for name, _ in self.net.named_modules():
            if name.rpartition(".")[2] == "global_pool":
                return str(name)
        raise UsageError(f"{self.name} has no pooling to replace. Choose a convolutional model, or remove the trick.")

    def __setattr__(self, name: str, value: Any) -> None:
        # torch would put a module beside the property of that name.
        if name in ("classifier", "pool"):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def head_names(self) -> frozenset[str]:
        """Names of the parameters of the classifier, or of all classifiers, as in ``named_parameters()``."""
        prefixes = tuple(f"net.{head}." for head in self._heads)
        return frozenset(name for name, _ in self.named_parameters() if name.startswith(prefixes))

    @property
    def layers(self) -> dict[str, int]:
        """Parameter name -> its layer as timm's optimisers count: what follows the last block is of the classifier's layer."""
        own = {f"net.{name}": layer for name, layer in _layers(self.net).items()}
        return own | dict.fromkeys(self._beside, max(own.values()))

    @property
    def depths(self) -> dict[str, int]:
        """Parameter name -> depth of its layer, 0 at the input; the classifier alone has the largest. By timm's own layers."""
        found, heads = self.layers, self.head_names | self._beside
        top = 1 + max(depth for name, depth in found.items() if name not in heads)
        return {name: top if name in heads else found[name] for name, _ in self.named_parameters()}

    @property
    def _beside(self) -> frozenset[str]:
        return frozenset(f"companions.{name}" for name, _ in self.companions.named_parameters())

    def forward(self, x: Tensor) -> Outputs:
        """[B, C, H, W] normalised -> Outputs; its logits are those of ``net(x)``, and dropout is drawn once."""
        if self.fixed_size and x.shape[-2:] != (self.fixed_size, self.fixed_size):
            raise UsageError(
                f"{self.name} was built for {self.fixed_size} x {self.fixed_size} pixels, not {x.shape[-2]} x {x.shape[-1]}. "
                "Keep one size, or choose a convolutional model."
            )
        raw = self.net.forward_features(x)  # type: ignore[operator]
        if self._direct:
            features = self.net.forward_head(raw, pre_logits=True)  # type: ignore[operator]
            logits = self.classifier(features)
        else:
            inputs, logits = self._watched(raw)
            features = torch.cat(inputs, 1)
        return Outputs(self._maps(raw, features), features, logits)

    def _maps(self, raw: Any, features: Tensor) -> Tensor:
        if not isinstance(raw, Tensor) or raw.ndim < 3:
            return features[:, :, None, None]
        if raw.ndim == 4:
            return raw.permute(0, 3, 1, 2) if self._channels_last else raw
        patches = raw[:, getattr(self.net, "num_prefix_tokens", 0) or 0 :]
        side = round(patches.shape[1] ** 0.5)
        if side * side != patches.shape[1]:
            return features[:, :, None, None]
        return patches.transpose(1, 2).reshape(patches.shape[0], -1, side, side)

    def _watched(self, raw: Any) -> tuple[list[Tensor], Tensor]:
        """The inputs of the classifiers and the logits, of one pass through timm's own head."""
        inputs: list[Tensor] = []

        def watch(module: nn.Module, args: tuple[Tensor]) -> None:
            # A classifier that is a convolution, or comes before pooling, sees a map: its mean stands for it.
            places = (2, 3) if isinstance(module, nn.Conv2d) else tuple(range(1, args[0].ndim - 1))
            inputs.append(args[0].mean(places) if places else args[0])

        hooks = [self.net.get_submodule(head).register_forward_pre_hook(watch) for head in self._heads]
        try:
            return inputs, self.net.forward_head(raw)  # type: ignore[operator]
        finally:
            for hook in hooks:
                hook.remove()

    def _probe(self, classes: int, x: Tensor) -> None:
        """Find out, by one image, how features and logits hang together."""
        self.net.eval()
        try:
            with torch.no_grad():
                raw = self.net.forward_features(x)  # type: ignore[operator]
                inputs, logits = self._watched(raw)
                if len(inputs) == len(self._heads) == 1:
                    head = self.net.get_submodule(self._heads[0])
                    self._plain = isinstance(head, nn.Linear) and torch.equal(head(inputs[0]), logits)
                if self._plain:
                    self._direct = torch.equal(self.net.forward_head(raw, pre_logits=True), inputs[0])  # type: ignore[operator]
                self(x)
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError, AttributeError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            shape = f"{x.shape[1]} channels and {x.shape[2]} x {x.shape[3]} pixels"
            raise UsageError(f"{self.name} cannot read images of {shape} ({reason}). Choose another size or model.") from None
        if logits.shape != (1, classes):
            raise UsageError(f"{self.name} does not classify into {classes} classes. Choose another model.")
        self.net.train()


class Pooling(nn.Module):
    """A pooling in the place of timm's: ``inner`` maps [B, D, h, w] to [B, D]; the maps may come with their channels last, and
    the rest of the head may want two places of size 1 ``kept``.
    """

    def __init__(self, inner: nn.Module, kept: bool, channels_last: bool) -> None:
        super().__init__()
        self.inner, self.kept, self.channels_last = inner, kept, channels_last

    def is_identity(self) -> bool:
        """What some of timm's heads ask of their pooling."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """Maps -> what the rest of the head wants."""
        pooled: Tensor = self.inner(x.permute(0, 3, 1, 2) if self.channels_last else x)
        return pooled[:, :, None, None] if self.kept else pooled


def check(name: str) -> None:
    """Raise UsageError where there is no model of that name."""
    if not timm.is_model(name) or plugins.hidden(name) or ("." in name and name not in timm.list_models(pretrained=True)):
        near = difflib.get_close_matches(name, [m for m in timm.list_models() if not plugins.hidden(m)], 3) or ["resnet50"]
        raise UsageError(
            f"There is no model {name!r}. Choose one of timm's, for example {' or '.join(near)}, or name the file of your own "
            "with --plugin."
        )


def build(name: str, classes: int, channels: int = 3, size: int = 224, weights: str = "") -> Net:
    """The timm model ``name`` for images [channels, size, size], in training mode; random numbers are torch's global ones.

    ``weights``: "" for random initialisation; "hub" for the published weights; a .safetensors file; or the folder of a run.
    All but the classifier must come from the weights, and the classifier does too where it fits. Raises UsageError where
    the model is unknown, or the weights cannot be had, are damaged, or do not fit.

    >>> build("cifar_resnet8", classes=10, size=32)(torch.zeros(2, 3, 32, 32)).features.shape
    torch.Size([2, 64])
    """
    check(name)
    options: dict[str, Any] = {"in_chans": channels}
    if (cfg := timm.get_pretrained_cfg(name)) and cfg.fixed_input_size:
        options["img_size"] = size
    try:
        net = timm.create_model(name, num_classes=classes, **options)
    except Exception as error:
        where = plugins.place(error)
        if not where and not isinstance(error, RuntimeError | AssertionError | ValueError | TypeError | ZeroDivisionError):
            raise
        reason = where + str(error).strip().split("\n")[0].rstrip(".")
        raise UsageError(f"{name} cannot be built for {channels} channels of {size} pixels ({reason}).") from None
    _complete(net, name, channels, size)
    if weights:
        file = _from_hub(name) if weights == "hub" else local(weights)
        _load(net, name, file, options, weights)
    else:
        _unzero(net)
    return Net(net, name, classes, channels, size, bool(weights))


def _complete(net: nn.Module, name: str, channels: int, size: int) -> None:
    """Fill in what a network of one's own need not say. Raises UsageError where it lacks what all of timm's have."""
    missing = [part for part in ("forward_features", "forward_head", "get_classifier") if not hasattr(net, part)]
    if missing:
        raise UsageError(f"{name} has no {' and no '.join(missing)}, as all of timm's networks have. Add what is missing.")
    if not hasattr(net, "pretrained_cfg"):
        known = {"input_size": (channels, size, size), "crop_pct": timm.data.DEFAULT_CROP_PCT}
        cast(Any, net).pretrained_cfg = known | {"mean": timm.data.IMAGENET_DEFAULT_MEAN, "std": timm.data.IMAGENET_DEFAULT_STD}


def restore(net: Net, run: str) -> None:
    """Put the weights of a run into a network with the same surgery: all but the classifier, and the classifier where it fits.

    Raises UsageError where they do not fit.
    """
    held, own = load_file(local(run)), net.net.state_dict()
    body = body_of(own, net._heads)
    fit = {name for name, tensor in own.items() if name in held and held[name].shape == tensor.shape}
    if body - fit:
        shapes, saved = ({name: list(tensor.shape) for name, tensor in state.items()} for state in (own, held))
        raise UsageError(f"{run} does not fit {net.name}: {_misfit(shapes, saved, body)}.")
    taken = fit if own.keys() == fit else body
    net.net.load_state_dict(own | {name: held[name] for name in taken})
    net.pretrained = True


def _load(net: nn.Module, name: str, file: Path, options: dict[str, Any], told: str) -> None:
    """Load a file through timm, which resizes position embeddings, adapts the first layer and reads old spellings."""
    source = f"The hub's file {file.name}" if told == "hub" else told
    advice = "Name the model in that file with --model."
    shapes = shapes_of(file)
    heads = heads_of(net)
    own = {n: t.shape for n, t in net.state_dict().items()}
    body = body_of(own, heads)
    prefix = prefix_of(shapes, body)
    names = {n: n.removeprefix(prefix) for n in shapes if n.startswith(prefix)}
    # A run's tricks may have left tensors of their own, and a classifier of another make.
    aside = {n for n in names.values() if n.startswith("tricks/")}
    if (classifier := {*names.values()} - aside - body_of(names.values(), heads)) != own.keys() - body:
        aside |= classifier
    names = {n: new for n, new in names.items() if new not in aside}
    plain = names.keys() == shapes.keys() and not prefix
    shapes = {new: shapes[n] for n, new in names.items()}
    missing = sorted(body - shapes.keys())
    # A few names may be timm's to rename, but only where the file has names that are not the model's.
    if missing and (shapes.keys() <= own.keys() or 2 * len(missing) > len(body)):
        raise UsageError(f"{source} does not fit {name}: it lacks {_some(missing)}. {advice}")
    saved = next((shapes[f"{head}.weight"][0] for head in heads if f"{head}.weight" in shapes), 0)
    overlay: dict[str, Any] = {"num_classes": saved, "label_offset": 0, "custom_load": False}
    overlay |= {"file": str(file)} if plain else {"state_dict": {names[n]: t for n, t in load_file(file).items() if n in names}}
    first = f"{cast(dict[str, Any], net.pretrained_cfg).get('first_conv')}.weight"
    if first in own and tuple(shapes.get(first, ())) == tuple(own[first]):
        overlay["input_size"] = (options["in_chans"], *cast(dict[str, Any], net.pretrained_cfg)["input_size"][1:])
    try:
        # With as many classes as the file has, timm loads strictly: what does not fit is an error.
        loaded = timm.create_model(name, pretrained=True, num_classes=saved, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, ValueError, KeyError, AssertionError):
        raise UsageError(f"{source} does not fit {name}: {_misfit(own, shapes, body)}. {advice}") from None
    state = loaded.state_dict()
    net.load_state_dict({n: state[n] if n in state and state[n].shape == own[n] else t for n, t in net.state_dict().items()})


def body_of(names: Iterable[str], heads: Sequence[str]) -> set[str]:
    """The names of tensors that are not a classifier's."""
    return {name for name in names if not name.startswith(tuple(f"{head}." for head in heads))}


def prefix_of(names: Iterable[str], body: set[str]) -> str:
    """What stands before each name of a network's tensors in a file that has another's or none beside them; else nothing.

    >>> prefix_of(["module.conv.weight", "module.bn.bias", "step"], {"conv.weight", "bn.bias"})
    'module.'
    """
    there = set(names)
    if not body or body <= there:
        return ""
    one = min(body)
    before = [prefix for prefix in {name.removesuffix(one) for name in there if name.endswith(f".{one}")} if prefix]
    found = [prefix for prefix in before if all(prefix + name in there for name in body)]
    return found[0] if len(found) == 1 else ""


def shapes_of(file: Path) -> dict[str, list[int]]:
    """Name -> shape of the tensors of a safetensors file, from its header."""
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"{file} cannot be read as a safetensors file ({error}). Download it again, or give another file."
        ) from None


def _misfit(own: Shapes, file: Shapes, body: set[str]) -> str:
    for name in sorted(body & file.keys()):
        if list(own[name]) != list(file[name]):
            return f"{name} is {list(file[name])} there and {list(own[name])} in the model"
    if missing := sorted(body - file.keys()):
        return f"it lacks {_some(missing)}"
    return f"it has {_some(sorted(file.keys() - own.keys()))} in addition"


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def local(path: str) -> Path:
    """The file of weights that a path leads to. Raises UsageError where there is none."""
    file = Path(path)
    if os.path.isdir(file):
        file = file / "model.safetensors"
    if file.suffix != ".safetensors":
        raise UsageError(
            f"{path} is not a .safetensors file, the only format supported. Convert it with safetensors.torch.save_file."
        )
    if not os.path.isfile(file):
        raise UsageError(f"There is no file {file}. Give the path of a .safetensors file or of a run with --weights.")
    return file


def _from_hub(name: str) -> Path:
    """The published weights, from the hub's cache on this machine or else from the hub; never a pickle."""
    cfg = timm.get_pretrained_cfg(name)
    other = "Give a file with --weights FILE, or train from scratch with --weights none."
    if cfg is None or not cfg.hf_hub_id:
        raise UsageError(f"No weights of {name} are published on the hub. {other}")
    where = (cfg.hf_hub_id, "model.safetensors")
    with suppress(huggingface_hub.errors.LocalEntryNotFoundError):
        return Path(huggingface_hub.hf_hub_download(*where, local_files_only=True))
    offline = UsageError(f"The weights of {name} cannot be fetched: no connection to the hub. {other}")
    if not _hub_answers():
        raise offline
    try:
        return Path(huggingface_hub.hf_hub_download(*where))
    except huggingface_hub.errors.LocalEntryNotFoundError:
        raise offline from None
    except huggingface_hub.errors.EntryNotFoundError:
        raise UsageError(f"The hub has no weights of {name} in the safetensors format. {other}") from None
    except (huggingface_hub.errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UsageError(f"The weights of {name} cannot be fetched: {reason}. {other}") from None


def _hub_answers() -> bool:
    """Ask once, because the hub's client tries for half a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    request = Request(huggingface_hub.constants.ENDPOINT, method="HEAD")  # noqa: S310  set by the user or by the hub's client
    try:
        urlopen(request, timeout=HUB_SECONDS).close()  # noqa: S310
    except HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def heads_of(net: nn.Module) -> tuple[str, ...]:
    """Names of the classifiers of a timm model, without those of modules that hold others."""
    found = net.get_classifier()  # type: ignore[operator]
    modules = list(found) if isinstance(found, tuple | list | nn.ModuleList) else [found]
    names = {id(module): name for name, module in net.named_modules()}
    return tuple(names[id(module)] for module in modules if isinstance(module, nn.Module))


def _layers(net: nn.Module) -> dict[str, int]:
    if hasattr(net, "group_matcher"):
        return cast(dict[str, int], group_parameters(net, net.group_matcher(coarse=False), reverse=True))  # type: ignore[operator]
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in net.named_parameters()))
    return {name: owners.index(name.rpartition(".")[0]) for name, _ in net.named_parameters()}


def _unzero(net: nn.Module) -> None:
    """Start every scale of a batch norm at 1: timm zeroes the last of a residual branch, which here is the trick zero_gamma."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine and not module.weight.any():
            nn.init.ones_(module.weight)


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """The published statistics, averaged for grey images and repeated for more channels, as timm does with first layers."""
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))
