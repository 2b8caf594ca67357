"""Training with Lightning's Trainer on torchvision's ImageFolder."""

import tempfile

import lightning
import timm
import torch
from program import Clock, Enough, arguments, workers
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

args = arguments()
clock = Clock(args)


class Module(lightning.LightningModule):
    """A timm network with AdamW."""

    def __init__(self):
        super().__init__()
        self.network = timm.create_model(args.model, num_classes=len(images.classes))
        if args.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)

    def training_step(self, batch):
        x, y = batch
        loss = cross_entropy(self.network(x.to(memory_format=torch.channels_last) if args.channels_last else x), y)
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, *_):
        clock.step()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


images = ImageFolder(
    args.data / "train",
    v2.Compose(
        [
            v2.RandomResizedCrop(args.size),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    ),
)
with tempfile.TemporaryDirectory() as folder:
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, precision="bf16-mixed" if args.bf16 else "32-true", default_root_dir=folder
    )
    try:
        trainer.fit(Module(), DataLoader(images, args.batch, shuffle=True, **workers(args)))
    except Enough:
        clock.tell()
