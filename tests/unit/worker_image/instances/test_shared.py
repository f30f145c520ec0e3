"""Tensors through shared memory: what one end writes the other reads, of any type, shape and size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from worker_image.server.bfloat16 import BF16
from worker_image.server.instances.shared import SharedTensors
from worker_image.server.tensors import NUMPY_TYPES, Tensors

numbers = arrays.arrays(
    st.sampled_from([dtype for name, dtype in NUMPY_TYPES.items() if name != "BYTES"]),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
halves = arrays.arrays(np.uint16, arrays.array_shapes(min_dims=0, max_dims=3, max_side=4)).map(
    lambda bits: bits.view(BF16)
)
texts = arrays.arrays(np.dtype(object), arrays.array_shapes(max_dims=2, max_side=4), elements=st.text() | st.binary())


@contextmanager
def both_ends() -> Iterator[tuple[SharedTensors, SharedTensors]]:
    writer = SharedTensors.create()
    reader = SharedTensors(os.dup(writer.fd))
    try:
        yield writer, reader
    finally:
        writer.close()
        reader.close()


@given(st.lists(st.dictionaries(st.text(), numbers | halves | texts, max_size=4), max_size=3))
def test_what_is_written_is_read(batches: list[Tensors]) -> None:
    with both_ends() as (writer, reader):
        for tensors in batches:
            read = reader.read(writer.write(tensors))

            assert read.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert read[name].dtype == tensor.dtype
                assert read[name].shape == tensor.shape
                assert read[name].tolist() == tensor.tolist() or np.array_equal(read[name], tensor, equal_nan=True)


def test_grows_to_what_a_batch_needs_while_earlier_tensors_are_held() -> None:
    with both_ends() as (writer, reader):
        small = reader.read(writer.write({"x": np.ones(4)}))
        large = np.arange(1_000_000.0)

        read = reader.read(writer.write({"x": large}))

        assert np.array_equal(read["x"], large)
        assert small["x"].shape == (4,)


def test_takes_views_that_do_not_lie_in_one_piece() -> None:
    with both_ends() as (writer, reader):
        view = np.arange(20.0).reshape(4, 5)[::2, 1:4]

        assert np.array_equal(reader.read(writer.write({"x": view}))["x"], view)
