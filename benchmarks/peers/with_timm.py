"""A plain training loop with timm's data set, loader, network and optimiser."""

import timm
import torch
from program import Clock, Enough, arguments, autocast, workers
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from torch.nn.functional import cross_entropy

args = arguments()
clock = Clock(args)
data = create_dataset("", root=args.data, split="train", is_training=True)
loader = create_loader(
    data, args.size, args.batch, is_training=True, color_jitter=None, device=torch.device("cpu"), **workers(args)
)
layout = torch.channels_last if args.channels_last else torch.contiguous_format
model = timm.create_model(args.model, num_classes=len(data.reader.class_to_idx)).to(memory_format=layout)
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3)
model.train()
try:
    for x, y in loader:
        with autocast(args):
            loss = cross_entropy(model(x.contiguous(memory_format=layout)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.step()
except Enough:
    clock.tell()
