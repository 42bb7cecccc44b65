"""The order of rows, and how they learn their epoch."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, IterableDataset

from distil_nlp.errors import UserError
from distil_nlp.rows import EPOCH, FILLER
from distil_nlp.sampling import EpochRows, EpochSampler, EpochStream, training_order


def arguments(**changes) -> SimpleNamespace:
    """What `training_order` reads of `TrainingArguments`."""
    fields = {
        "seed": 1,
        "data_seed": None,
        "train_sampling_strategy": "random",
        "length_column_name": "length",
        "train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "world_size": 1,
    }
    return SimpleNamespace(**{**fields, **changes})


def test_random_order_is_a_permutation_by_seed_and_epoch():
    """A `DistributedSampler` without `set_epoch` repeats one order; global randomness changes on resume."""
    rows, order = range(50), training_order(range(50), arguments())
    assert sorted(order(0)) == sorted(order(1)) == list(rows)
    assert order(0) != order(1)
    assert order(0) != list(rows)
    torch.manual_seed(99)
    assert order(1) == training_order(rows, arguments())(1)
    assert order(0) != training_order(rows, arguments(seed=2))(0)


def test_data_seed_orders_rows_where_it_is_given():
    """A data_seed of 0 is a seed, not a missing one."""
    zero = training_order(range(50), arguments(seed=0))(0)
    assert training_order(range(50), arguments(data_seed=0))(0) == zero
    assert training_order(range(50), arguments())(0) != zero


def test_order_does_not_depend_on_the_number_of_processes():
    """Two processes would train on another order than one."""
    one, two = (training_order(range(50), arguments(world_size=size)) for size in (1, 2))
    assert one(3) == two(3)


def test_sequential_is_in_order():
    """A curriculum must not be shuffled."""
    order = training_order(range(5), arguments(train_sampling_strategy="sequential"))
    assert list(EpochSampler(5, 1, order)) == [0, 1, 2, 3, 4]


def lengths_dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return Dataset.from_dict({"length": torch.randint(1, 100, (800,), generator=generator).tolist()})


def test_group_by_length_puts_like_lengths_side_by_side():
    """Batches of mixed lengths are mostly padding."""
    rows = lengths_dataset()
    order = training_order(rows, arguments(train_sampling_strategy="group_by_length"))
    lengths = rows["length"]

    def padding(places):
        batches = [places[i : i + 8] for i in range(0, 800, 8)]
        return sum(max(lengths[p] for p in batch) - lengths[q] for batch in batches for q in batch)

    assert sorted(order(0)) == list(range(800))
    assert padding(order(0)) < 0.3 * padding(range(800))
    assert order(0) == training_order(rows, arguments(train_sampling_strategy="group_by_length"))(0)
    assert order(0) != order(1)


@pytest.mark.parametrize(("rows", "columns"), [(Dataset.from_dict({"text": ["a"]}), r"\['text'\]"), ([1], "None")])
def test_group_by_length_needs_a_length_column(rows, columns):
    """Without it transformers reads every row before the first step."""
    args = arguments(train_sampling_strategy="group_by_length", length_column_name="size")
    with pytest.raises(UserError, match=f"column 'size' .* got columns {columns}"):
        training_order(rows, args)


def test_an_unknown_strategy_is_an_error():
    """Its order could not be resumed."""
    with pytest.raises(UserError, match="random, group_by_length or sequential / got batch_rows"):
        training_order(range(5), arguments(train_sampling_strategy="batch_rows"))


@pytest.mark.parametrize(("rows", "multiple", "fillers"), [(10, 4, 2), (8, 4, 0), (3, 8, 5), (10, 1, 0)])
def test_fillers_make_the_last_batch_even(rows, multiple, fillers):
    """Accelerate would otherwise repeat rows, which then count twice."""
    sampler = EpochSampler(rows, multiple)
    read = EpochRows([{"value": i} for i in range(rows)]).__getitems__(list(sampler))
    assert len(sampler) == len(read) == rows + fillers
    assert [row[FILLER] for row in read] == [False] * rows + [True] * fillers
    assert [row["value"] for row in read[:rows]] == list(range(rows))


def test_an_index_carries_its_epoch():
    """Worker processes that live on from epoch to epoch would go on with the first epoch's masks."""
    rows = Dataset.from_dict({"value": list(range(5))})
    sampler = EpochSampler(5, 3, training_order(rows, arguments()))
    seen = EpochRows(rows)
    for epoch in (0, 1, 7):
        sampler.set_epoch(epoch)
        read = seen.__getitems__(list(sampler))
        assert {row[EPOCH] for row in read} == {epoch}
        assert sorted(row["value"] for row in read if not row[FILLER]) == [0, 1, 2, 3, 4]
        assert [seen[i] for i in sampler] == read


def test_rows_may_come_one_by_one():
    """A plain list has no `__getitems__`, a `Dataset` must be read in one go."""
    assert EpochRows([{"a": 1}, {"a": 2}])[1] == {"a": 2, EPOCH: 0, FILLER: False}
    assert len(EpochRows([1, 2, 3])) == 3

    class Counted(list):
        calls = 0

        def __getitems__(self, places):
            Counted.calls += 1
            return [self[place] for place in places]

    EpochRows(Counted([{"a": 1}, {"a": 2}])).__getitems__([0, 1, 2])
    assert Counted.calls == 1


def test_a_stream_knows_its_epoch_and_shuffles_anew():
    """A stream whose `set_epoch` nobody calls repeats one order and one mask."""
    base = IterableDataset.from_generator(lambda: ({"value": i} for i in range(100))).shuffle(seed=1, buffer_size=100)
    stream = EpochStream(base)
    first = list(stream)
    stream.set_epoch(2)
    second = list(stream)
    assert {row[EPOCH] for row in first} == {0}
    assert {row[EPOCH] for row in second} == {2}
    assert [row["value"] for row in first] != [row["value"] for row in second]
    assert sorted(row["value"] for row in second) == list(range(100))


def test_a_stream_without_epochs_of_its_own_is_taken_as_it_is():
    """A plain iterable has no `set_epoch`."""
    stream = EpochStream([{"a": 1}])
    stream.set_epoch(1)
    assert list(stream) == [{"a": 1, EPOCH: 1}]
