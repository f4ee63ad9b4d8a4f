"""Which shard is next, when a run is given up, and which images kill: decided without Ray."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from gazecore.shards.blame import MAX_IN_A_ROW, REST_SECONDS, Queue, Streak, Task, find_killers
from gazecore.shards.plan import Shard

NOTHING = pa.table({"image_id": pa.array([], pa.string())})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shards(numbers: list[int], is_part: bool = False) -> Iterator[Shard]:
    return iter([Shard(number, NOTHING, is_part) for number in numbers])


def queue(count: int, clock: Clock, parts: int = 0) -> Queue:
    front, back = [*range(count)], [*range(count)][::-1]
    return Queue(shards(front), shards(back), shards([*range(parts)], True), clock)


def drain(q: Queue) -> list[int]:
    found = []
    while (task := q.pop()) is not None:
        found.append(task.shard.number)
    return found


def test_new_shards_come_in_order_each_once_and_parts_after_them() -> None:
    assert drain(queue(5, Clock(), parts=2)) == [0, 1, 2, 3, 4, 0, 1]
    assert queue(0, Clock()).is_empty()


@pytest.mark.parametrize("turns", ["fb", "bf", "bbf", "ffb", "b", "bfbbff"])
def test_from_both_ends_every_shard_comes_once(turns: str) -> None:
    q, found = queue(9, Clock()), []
    for step in range(50):
        if (task := q.pop(from_back=turns[step % len(turns)] == "b")) is None:
            break
        found.append(task.shard.number)
    assert sorted(found) == [*range(9)]


def test_what_failed_takes_turns_with_new_shards_once_it_has_rested() -> None:
    clock = Clock()
    q = queue(100, clock)
    first = q.pop()
    assert first is not None
    first.errors = 1
    q.put_failed(first)
    assert [task.shard.number for _ in range(3) if (task := q.pop())] == [1, 2, 3]
    clock.now = REST_SECONDS + 1
    again, new = q.pop(), q.pop()
    assert again is first
    assert new is not None
    assert new.shard.number == 4


def test_without_new_shards_nobody_rests() -> None:
    q = queue(1, Clock())
    task = q.pop()
    assert task is not None
    task.errors = 2
    q.put_failed(task)
    assert q.pop() is task
    assert task.is_last_try


def test_a_storage_that_answers_for_others_is_not_gone() -> None:
    streak = Streak()
    for _ in range(10 * MAX_IN_A_ROW):
        assert not streak.grows(Task(Shard(0, NOTHING)), answered=1, actors=1)
    for _ in range(MAX_IN_A_ROW):
        assert not streak.grows(Task(Shard(0, NOTHING)), answered=0, actors=1)
    assert streak.is_long(1)  # look at the other end of the plan first
    assert streak.grows(Task(Shard(0, NOTHING)), answered=0, actors=1)
    streak.broken()
    assert not streak.is_long(1)
    assert not streak.grows(Task(Shard(0, NOTHING)), answered=0, actors=1)


def test_tries_of_one_shard_are_one_sign() -> None:
    streak = Streak()
    for errors in (1, 2):
        assert not streak.grows(Task(Shard(0, NOTHING), errors=errors), answered=0, actors=1)
    assert streak.length == 0


@pytest.mark.parametrize("killers", [{"3"}, {"0", "7"}, set(), {str(i) for i in range(8)}])
def test_the_images_that_kill_are_found_by_halving(killers: set[str]) -> None:
    images = pa.table({"image_id": [str(i) for i in range(8)]})

    def survives(part: pa.Table) -> bool:
        return killers.isdisjoint(part["image_id"].to_pylist())

    assert find_killers(images, frozenset(), survives) == killers
    assert find_killers(images, frozenset(killers), survives) == frozenset()
