"""DP-SGD on your own model, with any torch optimizer, scheduler, Dataset and DataLoader.

    python examples/dp_sgd.py --epsilon 3 --epochs 10

Takes seconds on one core. What is private: one record of the data set. What must stay out of
the loop: un-noised gradients (``optimizer.step()`` of one's own is refused) and settings chosen
by looking at the training data.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from repro.privacy import make_private


class Spirals(Dataset):
    """Your data: anything with a length that gives (input, target) by index."""

    def __init__(self, records: int) -> None:
        generator = torch.Generator().manual_seed(0)
        radius = torch.rand(records, generator=generator) * 3
        self.targets = torch.randint(0, 2, (records,), generator=generator)
        angle = radius * 2 + torch.pi * self.targets
        points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
        self.inputs = points + 0.1 * torch.randn(records, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.targets[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--records", type=int, default=2000)
    options = parser.parse_args()

    torch.manual_seed(0)
    # LayerNorm, not BatchNorm, which mixes records.
    model = nn.Sequential(nn.Linear(2, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=int(options.epochs))
    train, test = Spirals(options.records), Spirals(options.records + 500)

    training = make_private(
        model,
        optimizer,
        DataLoader(train, batch_size=200),  # batches of 200 on average: Poisson sampling
        loss_fn=nn.CrossEntropyLoss(reduction="none"),  # one loss per record
        target_epsilon=options.epsilon,
        target_delta=1e-5,
        epochs=options.epochs,
        clip_norm=1.0,
        scheduler=scheduler,
    )
    model.train()
    while not training.finished:
        training.train_epoch()
        print(f"epoch {training.epoch:g}: ε = {training.epsilon():.3f} spent")
        # training.state_dict() holds all that a later load_state_dict goes on from.

    model.eval()
    with torch.no_grad():
        unseen = slice(options.records, None)
        right = model(test.inputs[unseen]).argmax(1) == test.targets[unseen]
    print(training.statement())
    print(f"accuracy on 500 unseen points: {100 * right.float().mean():.1f} %")


if __name__ == "__main__":
    main()
