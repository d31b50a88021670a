"""Memory is used again when nobody looks at it, and not before."""

import torch

from manyface.data.buffers import Buffers


def test_memory_comes_back_when_the_last_view_goes():
    buffers = Buffers(spare=3)
    one = buffers.take((2, 8), torch.float32)
    address, view = one.data_ptr(), one[1:]
    other = buffers.take((2, 8), torch.float32)
    assert other.data_ptr() != address
    del one
    assert buffers.take((2, 8), torch.float32).data_ptr() != address  # the view is left
    view.fill_(3)
    del view
    assert buffers.take((2, 8), torch.float32).data_ptr() == address


def test_what_autograd_keeps_is_kept():
    buffers = Buffers(spare=3)
    images = buffers.take((2, 8), torch.float32)
    address = images.data_ptr()
    weight = torch.ones(8, requires_grad=True)
    loss = (images.fill_(2) * weight).sum()
    del images
    assert buffers.take((2, 8), torch.float32).data_ptr() != address
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [4] * 8
    del loss
    assert buffers.take((2, 8), torch.float32).data_ptr() == address


def test_shapes_and_kinds_are_apart_and_few_are_kept():
    buffers = Buffers(spare=2)
    floats = [buffers.take((4,), torch.float32) for _ in range(5)]
    addresses = {tensor.data_ptr() for tensor in floats}
    assert len(addresses) == 5
    bytes_ = buffers.take((4,), torch.uint8)
    assert bytes_.dtype == torch.uint8
    floats.clear()
    assert sum(len(free) for free in buffers._free.values()) == 2
