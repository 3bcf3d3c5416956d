"""Data sets: bundled ones, idx files, image folders and zips, and all that can be wrong there."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from small_runs import LABELS, PIXELS, idx, write_mnist

from qnad_art.datasets.dataset import Dataset, dataset_names, load_dataset
from qnad_art.errors import DatasetError, InvalidInputError, UnknownNameError


def toy(counts=(50, 30, 20)):
    y = np.repeat(np.arange(len(counts)), counts)
    x = (np.arange(len(y), dtype=np.float32) / len(y)).reshape(-1, 1, 1, 1)
    return Dataset("toy", x, y, tuple("abcdefgh"[: len(counts)]), "Made up.")


def counts(data):
    return np.bincount(data.y, minlength=len(data.classes)).tolist()


class TestDataset:
    def test_take_keeps_class_proportions_and_pairs_images_with_labels(self):
        data = toy()
        sample = data.take(10, seed=3)
        assert counts(sample) == [5, 3, 2]
        where = np.rint(sample.x.ravel() * len(data)).astype(int)
        assert len(set(where)) == 10
        assert (data.y[where] == sample.y).all()

    def test_take_is_seeded_nested_and_shuffled(self):
        data = toy()
        small, large, other = data.take(10, seed=1), data.take(40, seed=1), data.take(10, seed=2)
        assert (large.x[:10] == small.x).all()
        assert (small.x != other.x).any()
        assert (np.diff(small.y) < 0).any()

    def test_split_is_stratified_disjoint_and_complete(self):
        data = toy()
        first, rest = data.split(0.2, seed=5)
        assert (counts(first), counts(rest)) == ([10, 6, 4], [40, 24, 16])
        both = np.concatenate([first.x, rest.x]).ravel()
        assert sorted(both) == sorted(data.x.ravel())

    def test_subset_keeps_the_order_asked_for(self):
        data = toy()
        assert (data.subset([70, 0, 99]).x == data.x[[70, 0, 99]]).all()

    @pytest.mark.parametrize("n", [0, 101])
    def test_take_refuses_impossible_sizes(self, n):
        with pytest.raises(InvalidInputError, match="100"):
            toy().take(n)

    @pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001, float("nan")])
    def test_split_refuses_an_empty_part(self, fraction):
        with pytest.raises(InvalidInputError, match="in two"):
            toy().split(fraction)

    def test_subset_refuses_indices_out_of_range(self):
        with pytest.raises(InvalidInputError, match="100 images"):
            toy().subset([0, 100])

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            (np.zeros((2, 1, 1, 1)), np.zeros(2, np.int64), "float32"),
            (np.zeros((2, 1), np.float32), np.zeros(2, np.int64), "N×C×H×W"),
            (np.zeros((2, 1, 1, 1), np.float32), np.zeros(3, np.int64), "int64"),
            (np.full((2, 1, 1, 1), 255, np.float32), np.zeros(2, np.int64), "255"),
            (np.full((2, 1, 1, 1), np.nan, np.float32), np.zeros(2, np.int64), "0, 1"),
            (np.zeros((2, 1, 1, 1), np.float32), np.array([0, 1]), "classes"),
        ],
    )
    def test_wrong_arrays_are_refused(self, x, y, message):
        with pytest.raises(InvalidInputError, match=message):
            Dataset("bad", x, y, ("only",), "")


class TestBundled:
    def test_mnist5k_splits_by_class_without_overlap(self):
        train, test = load_dataset("mnist5k", "train"), load_dataset("mnist5k", "test")
        assert (counts(train), counts(test)) == ([400] * 10, [100] * 10)
        assert train.x.shape[1:] == (1, 28, 28)
        assert (train.x.min(), train.x.max()) == (0, 1)
        seen = {image.tobytes() for image in train.x}
        assert not any(image.tobytes() in seen for image in test.x)

    def test_digits(self):
        test = load_dataset("digits")
        assert test.x.shape == (359, 1, 8, 8)
        assert test.x.max() == 1
        assert min(counts(test)) >= 34


class TestMnist:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("place", ["MNIST/raw", "raw", "."])
    def test_reads_idx_files_wherever_they_lie(self, tmp_path, place, suffix):
        write_mnist(tmp_path / place, suffix=suffix)
        data = load_dataset("mnist", data_dir=tmp_path)
        assert np.array_equal(np.rint(data.x[:, 0] * 255), PIXELS)
        assert np.array_equal(data.y, LABELS)

    def test_the_environment_says_where(self, tmp_path, monkeypatch):
        write_mnist(tmp_path)
        monkeypatch.setenv("QNAD_DATA_DIR", str(tmp_path))
        assert len(load_dataset("mnist")) == 12

    def test_no_folder_at_all(self, monkeypatch):
        monkeypatch.delenv("QNAD_DATA_DIR", raising=False)
        with pytest.raises(DatasetError, match="--data-dir"):
            load_dataset("mnist")

    def test_missing_files_name_every_place_and_the_way_out(self, tmp_path):
        with pytest.raises(DatasetError) as caught:
            load_dataset("mnist", "train", data_dir=tmp_path)
        for expected in (
            "MNIST",
            "raw",
            "train-labels-idx1-ubyte.gz",
            "--download",
            "QNAD_DATA_DIR",
        ):
            assert expected in str(caught.value)

    @pytest.mark.parametrize(
        "damage",
        [
            {"images": idx(PIXELS)[:-1]},
            {"images": idx(PIXELS) + b"x"},
            {"images": idx(PIXELS)[:7]},
            {"images": b"\0\0\x0d\x03" + idx(PIXELS)[4:]},
            {"images": idx(PIXELS[:, :20])},
            {"images": idx(PIXELS[:11])},
            {"labels": idx(LABELS + 1)},
            {"images": idx(PIXELS[:0]), "labels": idx(LABELS[:0])},
        ],
    )
    def test_damaged_idx_files_are_refused(self, tmp_path, damage):
        write_mnist(tmp_path, **damage)
        with pytest.raises(DatasetError, match="etch"):
            load_dataset("mnist", data_dir=tmp_path)

    def test_truncated_gzip_is_refused(self, tmp_path):
        write_mnist(tmp_path, suffix=".gz")
        path = tmp_path / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(DatasetError, match="damaged"):
            load_dataset("mnist", data_dir=tmp_path)


def picture(value, *, kind="png", size=(6, 5), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, format="JPEG" if kind == "jpg" else "PNG")
    return buffer.getvalue()


GOOD = {
    "train/cat/1.png": picture((255, 0, 0)),
    "train/dog/1.png": picture((0, 255, 0)),
    "test/dog/2.png": picture((0, 0, 51)),
    "test/dog/1.png": picture((51, 0, 0)),
    "test/dog/.hidden.png": b"junk",
    "test/readme.txt": b"not an image",
}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def write_folder(path, members):
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


class TestImages:
    @pytest.mark.parametrize(("write", "name"), [(write_zip, "pets.zip"), (write_folder, "pets")])
    def test_zip_and_folder_hold_the_same(self, tmp_path, write, name):
        calls = []
        path = write(tmp_path / name, GOOD)
        test = load_dataset(path, "test", progress=lambda done, total: calls.append((done, total)))
        assert (test.name, test.classes, test.y.tolist()) == ("pets", ("cat", "dog"), [1, 1])
        assert test.x.shape == (2, 3, 5, 6)
        # Sorted by name: first the red one, 51/255 = 0.2.
        assert test.x[:, :, 0, 0] == pytest.approx(np.array([[0.2, 0, 0], [0, 0, 0.2]]))
        assert calls == [(2, 2)]
        assert "lossy" not in test.provenance

    def test_grey_images_have_one_channel(self, tmp_path):
        path = write_folder(tmp_path / "g", {"test/a/1.png": picture(102, mode="L")})
        assert load_dataset(path).x.shape == (1, 1, 5, 6)

    def test_cifar_zip_is_found_and_called_lossy(self, tmp_path):
        members = {"train/a/1.jpg": picture(9, kind="jpg"), "test/b/1.jpg": picture(9, kind="jpg")}
        write_zip(tmp_path / "cifar100-images.zip", members)
        data = load_dataset("cifar100", data_dir=tmp_path)
        assert (data.name, data.y.tolist()) == ("cifar100", [1])
        assert "lossy (JPEG) copy" in data.provenance

    def test_cifar_files_with_a_wrong_checksum_are_never_unpickled(self, tmp_path):
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        (folder / "test_batch").write_bytes(b"cos\nabort\n(tR.")
        with pytest.raises(DatasetError, match="damaged"):
            load_dataset("cifar10", data_dir=tmp_path)

    def test_missing_cifar_names_both_places(self, tmp_path):
        with pytest.raises(
            DatasetError, match=r"cifar-10-batches-py.*cifar10-images\.zip.*--download"
        ):
            load_dataset("cifar10", data_dir=tmp_path)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (GOOD["test/dog/1.png"][:-30], "cannot be read"),
            (b"junk", "cannot be read"),
            (picture((1, 2, 3), size=(7, 5)), "one size"),
            (picture(9, mode="L"), "one size"),
            (picture(9, mode="I;16"), "8 bits"),
        ],
    )
    def test_bad_images_are_named(self, tmp_path, bad, message):
        path = write_zip(tmp_path / "pets.zip", {**GOOD, "test/dog/9.png": bad})
        with pytest.raises(DatasetError, match=rf"test/dog/9\.png.*{message}"):
            load_dataset(path)

    def test_a_damaged_zip_and_an_empty_folder(self, tmp_path):
        broken = tmp_path / "broken.zip"
        broken.write_bytes(b"PK\x03\x04 nothing more")
        with pytest.raises(DatasetError, match="intact zip"):
            load_dataset(str(broken))
        with pytest.raises(DatasetError, match="test/<class>"):
            load_dataset(str(tmp_path))

    def test_a_zip_member_that_fails_its_checksum(self, tmp_path):
        path = tmp_path / "pets.zip"
        write_zip(path, GOOD)
        data = path.read_bytes()
        at = data.index(GOOD["test/dog/1.png"]) + 40
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        with pytest.raises(DatasetError, match=r"test/dog/1\.png"):
            load_dataset(str(path))


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar10'"):
        load_dataset("cifar-10")
    with pytest.raises(UnknownNameError, match="test, train"):
        load_dataset("digits", "validation")
    assert "cifar100" in dataset_names()
