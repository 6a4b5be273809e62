"""Batches: each photo once per epoch, in orders that depend only on seed and epoch."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from scenelearn.data import Batches, Pixels
from scenelearn.data._resize import Resize
from scenelearn.errors import ArgumentError

N = 23


def made(
    batch_size: int = 5,
    *,
    seed: int = 0,
    indices: list[int] | None = None,
    unusable: tuple[int, ...] = (),
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Batches:
    """Photo k is an image whose every value is k, and its label is k mod 4."""
    images = np.repeat(np.arange(N, dtype=np.uint8), 3 * 3 * 3).reshape(N, 3, 3, 3)
    usable = np.ones(N, dtype=bool)
    usable[list(unusable)] = False
    return Batches(
        pixels=Pixels(resize=Resize(3, 3), usable=usable, load=lambda k: (images[k], k)),
        labels=(np.arange(N) % 4).astype(np.int32),
        indices=np.arange(N) if indices is None else np.array(indices),
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        process=process,
    )


def order(batches: Batches, epoch: int) -> list[int]:
    return [int(k) for _, _, chosen in batches.shuffled(epoch) for k in chosen]


@pytest.mark.parametrize("epoch", [0, 1, 50])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_each_photo_appears_once_per_epoch(epoch: int, batch_size: int) -> None:
    assert sorted(order(made(batch_size), epoch)) == list(range(N))


def test_each_epoch_has_its_own_order() -> None:
    orders = {tuple(order(made(), epoch)) for epoch in range(20)}
    assert len(orders) == 20
    assert tuple(range(N)) not in orders


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    first, second = made(seed=3), made(seed=3, batch_size=7)
    later = order(first, 2)
    order(first, 0)
    assert order(first, 2) == order(second, 2) == later
    assert order(made(seed=4), 2) != later


def test_the_global_random_state_does_not_matter() -> None:
    first = order(made(), 1)
    np.random.seed(1)  # noqa: NPY002  # shown to have no effect
    assert order(made(), 1) == first


def test_each_photo_comes_first_equally_often() -> None:
    n_epochs = 2300
    firsts = np.bincount([order(made(), epoch)[0] for epoch in range(n_epochs)], minlength=N)
    expected = n_epochs / N
    assert abs(firsts - expected).max() < 5 * expected**0.5


def test_the_last_partial_batch_is_kept() -> None:
    batches = made(batch_size=5)
    sizes = [len(labels) for _, labels, _ in batches.shuffled(0)]
    assert sizes == [5, 5, 5, 5, 3]
    assert len(batches) == 5
    assert batches.n_photos == N


def test_in_order_follows_the_indices() -> None:
    batches = made(batch_size=2, indices=[7, 3, 20])
    parts = list(batches.in_order())
    assert [chosen.tolist() for _, _, chosen in parts] == [[7, 3], [20]]
    assert [labels.tolist() for _, labels, _ in parts] == [[3, 3], [0]]


def test_images_and_labels_belong_to_the_indices() -> None:
    for images, labels, chosen in made().shuffled(1):
        assert images.shape == (len(chosen), 3, 3, 3)
        assert (images.dtype, labels.dtype, chosen.dtype) == (np.uint8, np.int32, np.int64)
        assert np.array_equal(images[:, 0, 0, 0], chosen)
        assert np.array_equal(labels, chosen % 4)


def test_photos_that_could_not_be_decoded_are_left_out() -> None:
    batches = made(indices=[1, 2, 3, 4, 5], unusable=(2, 5, 9))
    assert batches.indices.tolist() == [1, 3, 4]
    assert batches.n_photos == 3
    assert sorted(order(batches, 0)) == [1, 3, 4]


def test_without_photos_there_are_no_batches() -> None:
    batches = made(indices=[2], unusable=(2,))
    assert len(batches) == 0
    assert list(batches.in_order()) == []
    assert list(batches.shuffled(0)) == []


def test_a_batch_is_a_copy() -> None:
    batches = made()
    images: npt.NDArray[np.uint8]
    images, _, _ = next(batches.in_order())
    images[:] = 255
    assert next(batches.in_order())[0].max() == 4


@pytest.mark.parametrize("value", [0, -1, 2.5, True, None])
def test_batch_size_out_of_range(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"`batch_size` must.*at least 1\. Received: .*Pass"):
        made(batch_size=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 0.5, None])
def test_seed_out_of_range(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"`seed` must.*at least 0\. Received: seed="):
        made(seed=value)  # type: ignore[arg-type]


# Workers, resuming, processes


def checksum(batches: Batches, epochs: int = 2) -> str:
    total = hashlib.sha256()
    for epoch in range(epochs):
        for images, labels, indices in batches.shuffled(epoch):
            for part in (images, labels, indices):
                total.update(part.tobytes())
    return total.hexdigest()


def test_any_number_of_workers_gives_the_same_two_permutations() -> None:
    images = np.arange(103, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    sums, epochs = set(), set()
    for workers in range(4):
        batches = Batches(
            pixels=Pixels.from_array(images),
            labels=np.arange(103, dtype=np.int32),
            indices=np.arange(103),
            batch_size=10,
            workers=workers,
        )
        assert len(batches) == 11
        sums.add(checksum(batches))
        orders = [tuple(order(batches, epoch)) for epoch in range(2)]
        assert all(sorted(one) == list(range(103)) for one in orders)
        epochs.update(orders)
    assert len(sums) == 1
    assert len(epochs) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_worker_is_raised_in_place_of_its_batch(workers: int) -> None:
    def broken(indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], Any]:
        if 12 in indices:
            raise OSError("the disk is gone")
        return np.zeros((len(indices), 3, 3, 3), np.uint8), indices

    batches = Batches(
        pixels=Pixels(resize=Resize(3, 3), usable=np.ones(N, bool), load=broken),
        labels=np.zeros(N, np.int32),
        indices=np.arange(N),
        batch_size=5,
        workers=workers,
    )
    stream = batches.in_order()
    assert [next(stream)[2][0] for _ in range(2)] == [0, 5]
    start, start_of_work = time.monotonic(), time.process_time()
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert time.process_time() - start_of_work < 5
    assert time.monotonic() - start < 30  # it does not wait for workers that have ended


def test_an_abandoned_iterator_stops_its_workers() -> None:
    before = set(threading.enumerate())
    stream = made(workers=3).shuffled(0)
    next(stream)
    workers = set(threading.enumerate()) - before
    assert workers
    del stream
    gc.collect()
    assert not any(worker.is_alive() for worker in workers)


def test_training_resumes_at_any_step() -> None:
    batches = made(batch_size=4)
    whole = [indices.tolist() for _, _, indices in batches.shuffled(3)]
    for start in range(len(batches) + 1):
        rest = [indices.tolist() for _, _, indices in batches.shuffled(3, start)]
        assert rest == whole[start:]
    for step in range(len(batches)):
        images, _, indices = batches.batch(3, step)
        assert indices.tolist() == whole[step]
        assert images[:, 0, 0, 0].tolist() == whole[step]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_processes_share_each_batch(n: int) -> None:
    alone = [indices.tolist() for _, _, indices in made(batch_size=10).shuffled(1)]
    parts = [made(batch_size=10, process=(k, n)) for k in range(n)]
    streams = [[i.tolist() for _, _, i in part.shuffled(1)] for part in parts]
    n_steps = 3 if n <= 3 else 2  # the last batch holds 3 photos
    assert [part.n_steps for part in parts] == [n_steps] * n
    for step in range(n_steps):
        shared = [index for stream in streams for index in stream[step]]
        assert sorted(shared) == sorted(alone[step])
        assert all(stream[step] for stream in streams)
    judged = [k for part in parts for _, _, i in part.in_order() for k in i.tolist()]
    assert sorted(judged) == list(range(N))


# Balance


def unequal(seed: int = 0) -> Batches:
    labels = np.repeat([0, 1, 2], [200, 30, 5]).astype(np.int32)
    return Batches(
        pixels=Pixels.from_array(np.zeros((235, 1, 1, 3), np.uint8)),
        labels=labels,
        indices=np.arange(235),
        batch_size=47,
        seed=seed,
        balanced=True,
    )


def test_balanced_epochs_contain_each_class_equally_often() -> None:
    batches = unequal()
    seen = np.zeros(235, int)
    for epoch in range(30):
        drawn = np.array(order(batches, epoch))
        assert len(drawn) == 235
        counts = np.bincount(batches.labels[drawn], minlength=3)
        assert counts.max() - counts.min() <= 1
        assert len(set(drawn[batches.labels[drawn] == 0].tolist())) == counts[0]  # none twice
        assert set(drawn[batches.labels[drawn] == 2].tolist()) == set(range(230, 235))
        seen += np.bincount(drawn, minlength=235)
    assert (seen > 0).all()  # other photos of the large class in other epochs
    assert order(unequal(), 1) == order(unequal(), 1) != order(unequal(seed=1), 1)


def test_class_weights_make_classes_count_equally() -> None:
    batches = unequal()
    weights = batches.class_weights()
    assert weights == pytest.approx({0: 235 / 600, 1: 235 / 90, 2: 235 / 15})
    assert np.mean([weights[int(label)] for label in batches.labels]) == pytest.approx(1)


# With Keras


def test_keras_epochs_equal_ours_whatever_the_global_random_state() -> None:
    """Keras shuffles step numbers by the global random state; our order does not change."""
    import random

    given = []

    def noted(indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], Any]:
        given.append(indices.tolist())
        return np.zeros((len(indices), 3, 3, 3), np.uint8), indices

    from tests.helpers.networks import keras

    k = keras()
    batches = Batches(
        pixels=Pixels(resize=Resize(3, 3), usable=np.ones(N, bool), load=noted),
        labels=np.zeros(N, np.int32),
        indices=np.arange(N),
        batch_size=5,
    )
    model = k.Sequential([k.Input((3, 3, 3)), k.layers.Flatten(), k.layers.Dense(4)])
    model.compile("sgd", k.losses.SparseCategoricalCrossentropy(from_logits=True))
    random.seed(5)
    model.fit(batches.to_keras_dataset(), epochs=2, verbose=0)
    expected = [
        batches.order(epoch)[at : at + 5].tolist() for epoch in (0, 1) for at in range(0, N, 5)
    ]
    assert given[-10:] == expected


@pytest.mark.parametrize("workers", [0, 3])
def test_model_fit_accepts_batches(workers: int) -> None:
    from tests.helpers.networks import keras

    k = keras()
    batches = made(batch_size=5, workers=workers)
    data = batches.to_keras_dataset()
    steps = [data[step][0][:, 0, 0, 0].tolist() for step in range(len(data))]
    assert steps == [i.tolist() for _, _, i in batches.shuffled(0)]
    model = k.Sequential([k.Input((3, 3, 3)), k.layers.Flatten(), k.layers.Dense(4)])
    model.compile("sgd", k.losses.SparseCategoricalCrossentropy(from_logits=True))
    held = made(batch_size=7, indices=[1, 4, 9]).to_keras_dataset(shuffle=False)
    weights = batches.class_weights()
    history = model.fit(data, epochs=3, validation_data=held, class_weight=weights, verbose=0)
    assert len(history.history["val_loss"]) == 3
    steps = [data[step][0][:, 0, 0, 0].tolist() for step in range(len(data))]
    assert steps == [i.tolist() for _, _, i in batches.shuffled(3)]  # each epoch had its own
    again = batches.to_keras_dataset(epoch=3)
    assert again[0][0].tolist() == data[0][0].tolist()
    assert model.predict(held, verbose=0).shape == (3, 4)
    assert held[0][1].tolist() == [1, 0, 1]


def test_keras_trains_the_same_with_any_number_of_workers() -> None:
    from tests.helpers.networks import keras

    k = keras()
    results = []
    for workers in (0, 1, 3):
        k.utils.set_random_seed(0)
        model = k.Sequential([k.Input((3, 3, 3)), k.layers.Flatten(), k.layers.Dense(4)])
        loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(k.optimizers.SGD(1e-5), loss)
        model.fit(made(workers=workers).to_keras_dataset(), epochs=2, verbose=0)
        results.append(np.asarray(model.get_weights()[0]))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


# More arguments


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", -1), ("workers", 1.0), ("process", (0, 0)), ("process", (-1, 2))],
)
def test_numbers_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=rf"`{name}.*` must be an integer.*Rec"):
        made(**{name: value})  # type: ignore[arg-type]


def test_a_process_that_does_not_exist() -> None:
    with pytest.raises(ArgumentError, match=r"`process` must be \(k, n\).*Received: .*\(2, 2\)"):
        made(process=(2, 2))


@pytest.mark.parametrize("step", [-1, 5, 1.0, True])
def test_steps_out_of_range(step: object) -> None:
    with pytest.raises(ArgumentError, match=r"`step` must be an integer from 0 to 4.*Received"):
        made().batch(0, step)  # type: ignore[arg-type]


def test_epochs_and_starts_out_of_range() -> None:
    with pytest.raises(ArgumentError, match="`epoch` must be"):
        made().order(-1)
    with pytest.raises(ArgumentError, match="`epoch` must be"):
        made().to_keras_dataset(epoch=-1)
    with pytest.raises(ArgumentError, match="`start` must be"):
        made().shuffled(0, -2)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 4, 4, 1)])
def test_arrays_that_are_not_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"must have the shape \(n, height, width, 3\)"):
        Pixels.from_array(np.zeros(shape, np.uint8))
    with pytest.raises(ArgumentError, match="dtype float32"):
        Pixels.from_array(np.zeros((2, 4, 4, 3), np.float32))
