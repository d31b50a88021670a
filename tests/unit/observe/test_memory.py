import mmap
import time

import torch

from manyface.observe.memory import MemoryMeter, peak_device_bytes, resident_bytes

MEGABYTE = 1 << 20


def test_meter_sees_a_peak_that_has_gone_again():
    before = resident_bytes()
    # Mapped anew, for what is allocated may lie in memory that the process held already.
    with MemoryMeter(interval_seconds=0.005) as meter, mmap.mmap(-1, 64 * MEGABYTE) as block:
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
        until = time.monotonic() + 30  # the thread that looks has to come to it
        while meter._peak_bytes - before < 60 * MEGABYTE and time.monotonic() < until:
            time.sleep(0.005)
    assert 60 * MEGABYTE <= meter.peak_bytes - before <= 100 * MEGABYTE


def test_mapped_files_do_not_count(tmp_path):
    path = tmp_path / "records"
    path.write_bytes(b"\1" * (64 * MEGABYTE))
    before = resident_bytes()
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
        MemoryMeter(interval_seconds=0.005) as meter,
    ):
        assert sum(view[:: mmap.PAGESIZE]) == 64 * MEGABYTE // mmap.PAGESIZE
        time.sleep(0.02)
    assert meter.peak_bytes - before < 16 * MEGABYTE


def test_only_cuda_devices_have_a_device_peak():
    assert peak_device_bytes(torch.device("cpu")) is None
