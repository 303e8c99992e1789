"""The same images, whichever way they are read."""

import multiprocessing
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lorbms_fast.cpp import native_loops
from lorbms_fast.dataloader import prefetch
from lorbms_fast.dataloader.decoders import dali
from lorbms_fast.dataloader.in_batch import NearestInBatch
from lorbms_fast.dataloader.pixels import to_float_nchw, to_uint8_nhwc
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.readers import MappedReader, ResidentReader, StreamedReader, decode_on, reader
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.shards import Shards
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError

CPU = torch.device("cpu")
ROWS = np.array([[3, 40, 7], [0, 71, 40]])


@pytest.fixture(scope="module")
def sharded(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """24 photographs in three versions, in five shards."""
    out = tmp_path_factory.mktemp("sharded") / "store"
    prepare_store(out, photographs, of_folder(photographs), Recipe(versions=(1, 2, 3)), shard_bytes=200_000)
    return ImageStore.open(out)


def test_several_files_are_one_array(sharded):
    assert [len(file) for file in sharded.images.files] == [15, 15, 15, 15, 12]
    joined = np.concatenate(sharded.images.files)
    assert sharded.images.shape == joined.shape == (72, 64, 64, 3)
    for rows in (0, 71, -1, 15, slice(None), slice(10, 40, 7), np.array([5, 71, 14, 15]), ROWS, np.zeros((0, 2), int)):
        assert np.array_equal(sharded.images[rows], joined[rows])
    for row in (72, -73):
        with pytest.raises(IndexError):
            sharded.images[row]


@pytest.mark.parametrize("loops", [False, True])
def test_resident_and_mapped_are_what_the_store_says(sharded, loops):
    exact = to_float_nchw(sharded.images[ROWS])
    assert exact.shape == (2, 3, 3, 64, 64)
    for read in (MappedReader(sharded, CPU), ResidentReader.of(sharded, CPU), reader(sharded, "auto", 64, CPU)):
        with native_loops(loops):
            assert torch.equal(read(ROWS), exact)
            with pytest.raises(IndexError):
                read(np.array([[72]]))


ALIKE = ([0, 71], (0, -1), range(0, 72, 71), torch.tensor([0, 71]), np.isin(np.arange(72), (0, 71)))
ALIKE += (np.array([0, 71], np.uint64), np.array([0, -1], np.int8))


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("mode", ["mapped", "resident", "streamed"])
def test_rows_are_what_numpy_takes_for_them_in_every_mode(mode, loops, sharded):
    read = reader(sharded, mode, 64, CPU)
    with native_loops(loops):
        expected = read(np.array([0, 71]))
        for rows in ALIKE:
            assert torch.equal(read(rows), expected)
        assert read([]).shape == (0, 3, 64, 64)
        for wrong in (np.array([1.0]), ["1"], [72], [-73], [True], None):
            with pytest.raises(IndexError):
                read(wrong)


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_a_process_has_read_from_goes_on_in_a_forked_one(ahead, store, monkeypatch):
    """Where two threads ask at once, and one of them goes on while the other is making a pool."""
    source = NearestInBatch(store, 3, 0, read=StreamedReader(store, 64, CPU, threads=2), ahead=ahead)
    expected = source.batch(1).I_ref.sum().item()
    forked = multiprocessing.get_context("fork")
    there, here = forked.Pipe()
    begun = prefetch.ThreadPoolExecutor

    def slow(threads: int) -> ThreadPoolExecutor:
        time.sleep(0.1)
        return begun(threads)

    monkeypatch.setattr(prefetch, "ThreadPoolExecutor", slow)

    def worker() -> None:
        torch.set_num_threads(1)  # as a DataLoader's does: torch's own threads are the parent's, too
        with ThreadPoolExecutor(2) as pool:
            here.send([batch.I_ref.sum().item() for batch in pool.map(source.batch, (1, 1))])

    process = forked.Process(target=worker)
    process.start()
    try:
        assert there.poll(20), "the threads it waits for are the parent's"
        assert there.recv() == [expected] * 2
    finally:
        process.kill()
        process.join()


def test_what_was_read_from_can_be_sent(store):
    source = NearestInBatch(store, 3, 0, read=StreamedReader(store, 64, CPU), ahead=2)
    expected = source.batch(1).I_ref
    assert torch.equal(pickle.loads(pickle.dumps(source)).batch(1).I_ref, expected)


def test_squares_are_of_rows_as_numpy_takes_them(sharded):
    assert np.array_equal(sharded.square(-1, 64), sharded.square(71, 64))
    assert np.array_equal(sharded.square(-72, 64), sharded.square(0, 64))
    for row in (72, -73):
        with pytest.raises(IndexError, match="of 72 images"):
            sharded.square(row, 64)


@pytest.mark.parametrize("side", [64, 96, 128, 224])
def test_streamed_decodes_the_same_squares(sharded, side):
    exact = np.stack([sharded.square(int(row), side) for row in ROWS.ravel()]).reshape(2, 3, side, side, 3)
    assert np.array_equal(to_uint8_nhwc(StreamedReader(sharded, side, CPU, threads=3)(ROWS)), exact)


def test_streamed_is_what_was_prepared_whatever_stands_beside_it(tmp_path):
    """Photographs so large that decoders leave out what their smallest square does not need."""
    (tmp_path / "photos").mkdir()
    for i, texture in enumerate(np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), dtype=np.uint8)):
        Image.fromarray(texture).save(tmp_path / "photos" / f"{i}.jpg", quality=90)
    prepare_store(tmp_path / "s", tmp_path / "photos", of_folder(tmp_path / "photos"), Recipe(versions=(1, 2, 3)))
    store = ImageStore.open(tmp_path / "s")
    for rows in (np.array([0]), np.array([5, 0, 4]), np.arange(6)):
        streamed = StreamedReader(store, 64, CPU, threads=2)(rows)
        assert np.array_equal(to_uint8_nhwc(streamed), store.images[rows])


def test_streamed_by_dali(sharded, tmp_path):
    pytest.importorskip("nvidia.dali")
    exact = np.stack([sharded.square(int(row), 96) for row in ROWS.ravel()]).reshape(2, 3, 96, 96, 3)
    found = decode_on(CPU, sharded, ROWS, 96)
    assert np.abs(found.numpy().astype(int) - exact).max() <= 2


def test_batches_of_a_gpu_are_decoded_on_the_cpu_where_dali_is_not(sharded, monkeypatch, capsys):
    monkeypatch.setattr(dali, "obstacle", lambda device: "DALI is not there")
    streamed = StreamedReader(sharded, 96, torch.device("cuda"))
    assert not streamed._by_dali
    assert not streamed._by_dali
    assert capsys.readouterr().out == "photographs are decoded on the CPU: DALI is not there\n"


def test_an_unknown_mode_is_refused(sharded):
    with pytest.raises(ValueError, match="reader 'map': choose one of auto, mapped, resident, streamed"):
        reader(sharded, "map", 64, CPU)


def test_another_size_is_refused_unless_it_is_streamed(sharded):
    for mode in ("auto", "mapped", "resident"):
        with pytest.raises(UserError, match=r"images of 64 px, 96 are wanted: .* --images streamed"):
            reader(sharded, mode, 96, CPU)
    assert reader(sharded, "streamed", 96, CPU)(ROWS).shape == (2, 3, 3, 96, 96)


def test_photographs_that_changed_are_told(photographs, tmp_path):
    folder = Path(shutil.copytree(photographs, tmp_path / "photos"))
    prepare_store(tmp_path / "s", folder, of_folder(folder), Recipe())
    read = StreamedReader(ImageStore.open(tmp_path / "s"), 64, CPU)
    shutil.copyfile(folder / "photo00.jpg", folder / "photo05.jpg")
    with pytest.raises(UserError, match=r"photo05\.jpg is another picture"):
        read(np.array([4, 5]))
    (folder / "photo05.jpg").unlink()
    with pytest.raises(UserError, match=r"photo05\.jpg, of which .* is missing"):
        read(np.array([4, 5]))


@pytest.mark.parametrize("shard_bytes", [64_000_000, 100_000])
def test_rows_as_numpy_has_them(shard_bytes, photographs, tmp_path):
    prepare_store(tmp_path / "store", photographs, of_folder(photographs), Recipe(), shard_bytes=shard_bytes)
    images = ImageStore.open(str(tmp_path / "store")).images
    every, chosen = images[:], np.arange(len(images)) % 3 == 1
    for rows in (chosen, ~chosen & chosen, np.flatnonzero(chosen), -1, slice(2, None, 5), np.array([[3, -2], [0, 0]])):
        assert np.array_equal(images[rows], every[rows])
    assert np.array_equal(images.addresses(chosen), images.addresses(np.flatnonzero(chosen)))
    for asked in (images.__getitem__, images.addresses):
        with pytest.raises(IndexError, match="truth values of shape"):
            asked(chosen[1:])


@pytest.mark.parametrize("kept", ["store", "images"])
def test_another_process_opens_a_store_that_it_is_sent(kept, store):
    store.images.addresses(np.array([3]))
    sent = pickle.dumps(store if kept == "store" else store.images)
    assert len(sent) < store.images[0].nbytes
    opened = pickle.loads(sent)
    images = opened.images if kept == "store" else opened
    assert np.array_equal(images[3], store.images[3])
    (address,) = images.addresses(np.array([3]))
    assert address == images.files[0][3].ctypes.data != store.images.files[0][3].ctypes.data


def test_what_is_no_store_on_disk_is_sent_as_it_is(store):
    part = pickle.loads(pickle.dumps(ImageStore(store.path, store.images, store.index.slice(2, 3), store.root, {})))
    assert part.ids == store.ids[2:5]
    images = Shards([np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)], np.array([2]))
    images.addresses(np.array([0]))
    there = pickle.loads(pickle.dumps(images))
    assert np.array_equal(there[:], images[:])
    assert there.addresses(np.array([0])) == there.files[0].ctypes.data


def test_a_store_that_is_another_one_meanwhile_is_told(photographs, tmp_path):
    prepare_store(tmp_path / "s", photographs, of_folder(photographs), Recipe())
    sent = pickle.dumps(ImageStore.open(tmp_path / "s"))
    shutil.rmtree(tmp_path / "s")
    prepare_store(tmp_path / "s", photographs, of_folder(photographs), Recipe(versions=(2,)))
    with pytest.raises(UserError, match="prepared again; open it anew"):
        pickle.loads(sent)


def test_all_images_are_an_array_to_numpy(sharded, store):
    """One file is not copied; several are, unless that is refused."""
    for images in (sharded.images, store.images):
        every = np.asarray(images)
        assert every.dtype == images.dtype == np.uint8
        assert np.array_equal(every, images[:])
        assert np.array_equal(np.asarray(images, np.float32), images[:].astype(np.float32))
    assert np.shares_memory(np.asarray(store.images), store.images.files[0])
    assert not np.shares_memory(np.array(store.images), store.images.files[0])
    with pytest.raises(ValueError, match="5 files are one array only as a copy"):
        np.asarray(sharded.images, copy=False)
    with pytest.raises(IndexError, match=r"by rows alone: images\[rows\]"):
        store.images[0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_is_a_data_set_to_pytorch(workers, sharded):
    every = torch.from_numpy(sharded.images[:])
    for data in (sharded, sharded.images):
        assert torch.equal(torch.cat(list(DataLoader(data, 7, num_workers=workers))), every)
    shuffled = [torch.randperm(72).tolist()[start : start + 10] for start in range(0, 72, 10)]
    for rows, images in zip(shuffled, DataLoader(sharded, batch_sampler=shuffled, num_workers=workers), strict=True):
        assert torch.equal(images, every[rows])
    assert np.array_equal(sharded[ROWS], sharded.images[ROWS])


def test_no_shards_no_store():
    with pytest.raises(UserError, match="holds no images"):
        Shards.open({}, "again")
