"""All families of timm's networks, the smallest of each: do they train and predict, alone and with every trick that rebuilds?

    OMP_NUM_THREADS=1 python -m benchmarks.families

A family is a class of networks together with the classes of blocks that it is built of. Each member gets random weights and
the smallest images of SIZES that it reads, takes two steps of SGD on four random images, and predicts two others. With a trick
it must do the same and be another network than without; what a user would be refused is refused in a sentence. Networks of more
than LARGEST parameters are left out. What is found is kept in --log, line by line: the same command goes on where it was
stopped, and --again TRICK asks anew for one trick. Prints a Markdown table. Takes hours on one core.
"""

import argparse
import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.machine import origin
from trickbag.engine.scores import finite
from trickbag.ground import store
from trickbag.ground.cache import cache_dir
from trickbag.ground.errors import UsageError
from trickbag.models.networks import Net, build
from trickbag.tricks import bag, parse

SIZES = (32, 64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 384)
LARGEST = 40_000_000
CLASSES = 3
ALONE = "alone"


class Family(NamedTuple):
    """The smallest network of a family."""

    name: str
    network: str
    """Its class."""
    parameters: int


def every_network() -> Iterator[tuple[str, nn.Module]]:
    """timm's networks without weights in memory."""
    for name in timm.list_models():
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield name, timm.create_model(name, num_classes=CLASSES)


def kind(net: nn.Module) -> str:
    """What a network shares with its family: its class, and those of its parts that are defined in the same file."""
    own = {type(part).__name__ for part in net.modules() if type(part).__module__ == type(net).__module__}
    return " ".join([f"{type(net).__module__.rpartition('.')[2]}.{type(net).__name__}", *sorted(own)])


def families(log: Path) -> list[Family]:
    """The smallest network of each family, smallest first."""
    known = {line["name"]: line for line in store.lines(log)}
    if set(known) != set(timm.list_models()):
        for name, net in every_network():
            if name not in known:
                line = {"name": name, "kind": kind(net), "parameters": sum(p.numel() for p in net.parameters())}
                store.append(log, line)
                known[name] = line
    smallest: dict[str, Family] = {}
    for line in sorted(known.values(), key=lambda line: (line["parameters"], line["name"])):
        smallest.setdefault(line["kind"], Family(line["name"], line["kind"].split(" ")[0], line["parameters"]))
    return list(smallest.values())


def images(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def built(name: str) -> tuple[Net, int]:
    """The network at the smallest size that it reads. Raises the UsageError of the largest where it reads none."""
    for size in SIZES:
        torch.manual_seed(0)
        try:
            return build(name, CLASSES, size=size), size
        except UsageError as error:
            refusal = error
    raise refusal


def said(net: nn.Module, size: int, zeros: list[str]) -> Tensor:
    """The logits of four images in training mode, dropout drawn alike, with random values in the parameters ``zeros``."""
    net = copy.deepcopy(net).train()
    torch.manual_seed(0)
    for name in zeros:
        nn.init.normal_(net.get_parameter(name))
    with torch.no_grad():
        logits: Tensor = net(images(4, size, 1)).logits
    return logits


def silent(net: nn.Module) -> list[str]:
    """The parameters that are 0 at the start, as all of a classifier's or the last of a branch: they hide what comes before."""
    return [name for name, parameter in net.named_parameters() if not parameter.any()]


def learning(net: nn.Module, size: int) -> int:
    """Two steps; how many parameters have a gradient in the second. Raises ArithmeticError where the loss is no number."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for step in range(2):
        optimizer.zero_grad()
        loss = cross_entropy(net(images(4, size, step)).logits, torch.arange(4) % CLASSES)
        if not loss.isfinite():
            raise ArithmeticError(f"the loss is {float(loss)}")
        loss.backward()
        optimizer.step()
    return sum(p.grad is not None and bool(p.grad.any()) for p in net.parameters())


def predicts(net: nn.Module, size: int) -> None:
    """Raise ArithmeticError where two images get the same features, or no finite logits.

    Features by the statistics of their batch: after two steps the running ones are still those of no network.
    """
    with torch.no_grad():
        finite(net.eval()(images(2, size, 2)).logits)
        for part in net.modules():
            part.train(isinstance(part, nn.modules.batchnorm._BatchNorm))
        features = net(images(2, size, 2)).features
    if torch.equal(features[0], features[1]):
        raise ArithmeticError("all images have the same features")


def with_trick(trick: str, net: Net, size: int, learned: int) -> str:
    """What comes of a trick: ok, a refusal, or a fault; ``learned`` parameters have a gradient without it."""
    other = copy.deepcopy(net)
    torch.manual_seed(0)
    try:
        other = parse(bag()[trick].example or trick).fresh().model(other)
        zeros, alike = silent(net), other.state_dict().keys() == net.state_dict().keys()
        if alike and torch.equal(said(other, size, zeros), said(net, size, zeros)):
            return "fault: accepted without effect"
        found = learning(other, size)
        predicts(other, size)
    except UsageError as error:
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001  whatever a network raises is what this looks for
        return f"fault: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return "ok" if found >= 0.9 * learned else f"fault: {found} of {learned} parameters learn"


def outcomes(family: Family, wanted: list[str]) -> Iterator[tuple[str, str]]:
    """What comes of a family alone and with each trick."""
    if family.parameters > LARGEST:
        yield ALONE, f"left out: {family.parameters / 1e6:.0f} million parameters"
        return
    try:
        net, size = built(family.name)
        trained = copy.deepcopy(net)
        learned = learning(trained, size)
        predicts(trained, size)
    except UsageError as error:
        yield ALONE, f"refused: {error}"
        return
    except Exception as error:  # noqa: BLE001
        yield ALONE, f"fault: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return
    yield ALONE, f"ok, {size} pixels"
    for trick in wanted:
        yield trick, with_trick(trick, net, size, learned)


def surgeons() -> list[str]:
    """The tricks that rebuild networks."""
    return [name for name, trick in bag().items() if "model" in trick.plugs()]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--log", type=Path, default=cache_dir() / "families", help="the folder in which findings are kept")
    parser.add_argument(
        "--again", action="append", default=[], metavar="TRICK", help="ask anew for this trick; may be repeated"
    )
    parser.add_argument("--only", action="append", default=[], metavar="MODEL", help="this network alone; may be repeated")
    return parser.parse_args()


def table(found: list[Family], known: dict[tuple[str, str], str]) -> Iterator[str]:
    """The findings as Markdown: one line for each family, the sentences of refusals below."""
    yield f"| network | class | million parameters | {' | '.join([ALONE, *surgeons()])} |"
    yield "|---" * (4 + len(surgeons())) + "|"
    sentences: dict[str, list[str]] = {}
    for family in found:
        cells = []
        for arm in [ALONE, *surgeons()]:
            outcome = known.get((family.name, arm), "")
            word, _, rest = outcome.partition(": ")
            cells.append({"refused": "–", "left out": "left out"}.get(word, outcome if word != "fault" else f"**{outcome}**"))
            if word == "refused":
                sentences.setdefault(f"{arm}: {rest.replace(family.name, 'NETWORK')}", []).append(family.name)
        yield f"| {family.name} | {family.network} | {family.parameters / 1e6:.1f} | {' | '.join(cells)} |"
    yield "\n–: refused, in these sentences:\n"
    for sentence, names in sorted(sentences.items()):
        yield f"* {sentence} ({len(names)})"


def main() -> None:
    args = arguments()
    findings = args.log / "findings.jsonl"
    chosen = [family for family in families(args.log / "networks.jsonl") if not args.only or family.name in args.only]
    known = {(line["name"], line["arm"]): line["outcome"] for line in store.lines(findings)}
    for family in chosen:
        wanted = [trick for trick in surgeons() if trick in args.again or (family.name, trick) not in known]
        if wanted and not known.get((family.name, ALONE), "ok").startswith(("left out", "refused")):
            for arm, outcome in outcomes(family, wanted):
                store.append(findings, {"name": family.name, "arm": arm, "outcome": outcome})
                known[family.name, arm] = outcome
    print(f"{origin()}\n\n{len(chosen)} families.\n", *table(chosen, known), sep="\n")


if __name__ == "__main__":
    main()
