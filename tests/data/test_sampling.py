"""The order of rows, and their epochs."""

from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from distil_nlp.data.query_groups import GroupedOrder
from distil_nlp.data.row_sets import EPOCH, FILLER
from distil_nlp.data.sampling import EpochRows, EpochSampler, EpochStream, training_order
from distil_nlp.errors import UserError


def arguments(**changes) -> SimpleNamespace:
    """Return the fields of `TrainingArguments` that `training_order` reads."""
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
    single, double = (training_order(range(50), arguments(world_size=size)) for size in (1, 2))
    assert single(3) == double(3)


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


def test_an_epoch_shorter_than_its_rows_is_filled_up_by_none_of_them():
    """Prevents rows of other queries that fill up a round of two processes, and count in terms on single rows."""
    labels = [[float(j == 0), float(query)] for query in range(3) for j in range(4)]
    order = GroupedOrder(labels, batch_size=2, group_size=2, seed=0)  # six of twelve rows
    sampler = EpochSampler(order.num_slots, 4, order, first_filler=len(labels))
    read = EpochRows([{"value": i} for i in range(len(labels))]).__getitems__(list(sampler))
    assert [row[FILLER] for row in read] == [False] * 6 + [True] * 2


def test_an_index_carries_its_epoch():
    """Worker processes that live on from epoch to epoch would go on with the first epoch's masks."""
    rows = Dataset.from_dict({"value": list(range(5))})
    sampler = EpochSampler(5, 3, training_order(rows, arguments()))
    epoch_rows = EpochRows(rows)
    for epoch in (0, 1, 7):
        sampler.set_epoch(epoch)
        read = epoch_rows.__getitems__(list(sampler))
        assert {row[EPOCH] for row in read} == {epoch}
        assert sorted(row["value"] for row in read if not row[FILLER]) == [0, 1, 2, 3, 4]
        assert [epoch_rows[i] for i in sampler] == read


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


def numbers(count: int = 100, shards: int = 1) -> IterableDataset:
    def rows(shard):
        for start in shard:
            yield from ({"value": i} for i in range(start, count, shards))

    return IterableDataset.from_generator(rows, gen_kwargs={"shard": list(range(shards))})


def test_a_stream_goes_on_with_another_order_each_pass():
    """A stream whose epoch nobody sets repeats one order and one mask, or ends in a ragged step."""
    rows = list(islice(EpochStream(numbers().shuffle(seed=1, buffer_size=100)), 200))
    first, second = rows[:100], rows[100:]
    assert {row[EPOCH] for row in first} == {0}
    assert {row[EPOCH] for row in second} == {1}
    assert [row["value"] for row in first] != [row["value"] for row in second]
    assert sorted(row["value"] for row in second) == list(range(100))


@pytest.mark.parametrize("shards", [1, 4])
def test_processes_read_their_own_part_of_a_stream(shards):
    """Every process that reads everything, or rows that are read twice or by nobody."""
    parts = [list(islice(EpochStream(numbers(100, shards), rank, 2), 50)) for rank in range(2)]
    assert sorted(row["value"] for part in parts for row in part) == list(range(100))


def test_a_plain_iterable_is_split_row_by_row():
    """A stream that is no dataset must be shared out all the same."""
    parts = [[row["a"] for row in islice(EpochStream([{"a": i} for i in range(4)], rank, 2), 4)] for rank in range(2)]
    assert parts == [[0, 2, 0, 2], [1, 3, 1, 3]]


@pytest.mark.parametrize("stream", [numbers(40, 4), numbers(40, 1), [{"value": i} for i in range(40)]],
                         ids=["shards", "one shard", "plain"])  # fmt: skip
def test_workers_share_a_stream(stream):
    """Prevents workers that all read every row, and an error of a worker without a shard."""
    loader = DataLoader(EpochStream(stream), batch_size=5, num_workers=2, collate_fn=list)
    rows = [row for batch in islice(loader, 16) for row in batch]
    assert sorted(row["value"] for row in rows if row[EPOCH] == 0) == list(range(40))
    assert {row[EPOCH] for row in rows} == {0, 1}


def test_an_empty_stream_is_an_error():
    """An endless loop over nothing."""
    with pytest.raises(UserError, match="rows in the stream / got none"):
        next(iter(EpochStream([])))
