"""Records of several input tensors: the steps are those of the same records in one tensor."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, StackDataset

from repro.errors import InputError
from repro.privacy.noise_key import noise_keys
from tests.privacy.models import refused, small_training

COUNT, LENGTH, WORDS = 24, 5, 11
MADE = torch.Generator().manual_seed(0)
IDS = torch.randint(0, WORDS, (COUNT, LENGTH), generator=MADE)
MASK = torch.rand(COUNT, LENGTH, generator=MADE) < 0.7
AGE = torch.rand(COUNT, generator=MADE)
TARGETS = torch.randint(0, 2, (COUNT,), generator=MADE)


class Text(nn.Module):
    """Token ids, a mask and a number: integers, truth values and floats in one record."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, 4), nn.Linear(5, 2)

    def forward(self, ids, mask, age):
        mean = (self.words(ids) * mask.unsqueeze(-1)).sum(1) / (1 + mask.sum(1, keepdim=True))
        return self.head(torch.cat([mean, age.unsqueeze(-1)], dim=1))


class InOneTensor(nn.Module):
    """The same, of (b, 2 · LENGTH + 1) floats."""

    def __init__(self):
        super().__init__()
        self.text = Text()

    def forward(self, packed):
        ids, mask, age = packed.split([LENGTH, LENGTH, 1], dim=1)
        return self.text(ids.long(), mask, age[:, 0])


class Records(Dataset):
    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        parts = IDS[index], MASK[index], AGE[index]
        named = dict(zip(("ids", "mask", "age"), parts, strict=True))
        if self.kind == "packed":
            return torch.cat([IDS[index].float(), MASK[index].float(), AGE[index, None]]), (
                TARGETS[index]
            )
        kinds = {"tuple": parts, "list": list(parts), "dict": named}
        return kinds[self.kind], int(TARGETS[index])


def planned(model, records, **options):
    noise_keys.clear()  # every training here is a world of its own
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return small_training(
        model, records, optimizer, **{"clip_norm": 0.3, "batch_size": 4} | options
    )


def trained(model, records, **options):
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    training = planned(model, records, **options)
    training.train_epoch()
    assert training.finished
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def by_name(records):
    """A loader's own ``collate_fn``, which gives a dict."""
    inputs, targets = zip(*records, strict=True)
    columns = zip(*inputs, strict=True)
    names = ("ids", "mask", "age")
    return dict(zip(names, map(torch.stack, columns), strict=True)), torch.tensor(targets)


def test_every_structure_takes_the_steps_of_one_tensor():
    expected = trained(InOneTensor(), Records("packed"), engine="vmap")
    for records in (
        Records("tuple"),
        Records("list"),
        Records("dict"),
        StackDataset(StackDataset(ids=IDS, mask=MASK, age=AGE), TARGETS),
        DataLoader(Records("tuple"), batch_size=4, collate_fn=by_name),
    ):
        torch.testing.assert_close(trained(Text(), records), expected, rtol=1e-5, atol=1e-6)
    other = trained(Text(), Records("dict"), seed=4)
    assert not torch.allclose(other, expected, atol=1e-3), "the comparison sees a difference"


def test_an_empty_batch_and_chunks_change_nothing_else():
    """A batch of one record on average is empty one time in three."""
    options = {"batch_size": 1, "clip_norm": 1e-3}
    one = trained(InOneTensor(), Records("packed"), **options, engine="vmap")
    two = trained(Text(), Records("dict"), **options, chunk_size=1)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_no_record_is_held_after_a_step():
    training = planned(Text(), Records("tuple"))
    assert training._source.model._held.inputs is None
    training.step()
    assert training._source.model._held.inputs is None
    assert set(training.state_dict()["model"]) == set(Text().state_dict())


def test_a_collate_function_that_names_inputs_differently_is_refused():
    def renamed(records):
        inputs, targets = by_name(records)
        return (inputs if targets[0] else {f"{name}2": x for name, x in inputs.items()}), targets

    def without_rows(records):
        ((ids, mask, age), target) = records[0]
        return {"ids": ids[None], "mask": mask[None], "age": age}, torch.tensor([target])

    for collate in (renamed, without_rows):
        with pytest.raises(InputError, match="collate_fn"):
            planned(Text(), DataLoader(Records("tuple"), batch_size=4, collate_fn=collate))


class Mixing(Text):
    def forward(self, ids, mask, age):
        return super().forward(ids, mask, age - age.mean())


class Keeping(Text):
    def forward(self, ids, mask, age):
        self.last = ids
        return super().forward(ids, mask, age)


@pytest.mark.parametrize(
    ("model", "records", "options", "said"),
    [
        (Mixing(), Records("dict"), {}, "whatever records stand beside it"),
        (Keeping(), Records("tuple"), {}, "keeps records in its attribute 'last'"),
        (Text(), Records("dict"), {"engine": "bookkeeping"}, "auto or vmap"),
        (Text(), StackDataset(StackDataset(IDS, MASK), TARGETS), {}, "missing 1 required"),
        (Text(), StackDataset(StackDataset(ids=IDS, m=MASK), TARGETS), {}, "keyword argument 'm'"),
        (Text(), StackDataset(StackDataset(IDS, StackDataset(MASK)), TARGETS), {}, "pairs"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(model, records, options, said):
    with refused(said):
        planned(model, records, **options)
