"""A folder of images with a list of whose they are, on disk and in a tar."""

import tarfile

import pytest

from manyface.data.records import open_records


@pytest.fixture(params=["folder", "tar"])
def packed(request, write_faces, tmp_path):
    """A function: the set with the text of its label.txt."""
    root = write_faces({"images": 6}, folder="set")

    def pack(text, *, name="label.txt"):
        (root / name).write_text(text)
        if request.param == "folder":
            return root
        with tarfile.open(tmp_path / "set.tar", "w") as tar:
            tar.add(root, arcname="set")
        return tmp_path / "set.tar"

    return pack


def people_of(records):
    starts = records.first_images
    return {
        name: [records.file_name(i) for i in range(starts[p], starts[p + 1])]
        for p, name in enumerate(records.identity_names)
    }


@pytest.mark.parametrize("space", ["\t", " "])
def test_the_list_says_whose_images_they_are(packed, space):
    lines = [f"images/{i:04d}.jpg{space}{10 - i // 2}\n" for i in range(1, 7)]
    records = open_records(packed("".join(lines)))
    assert people_of(records) == {
        "7": ["0006.jpg"],
        "8": ["0004.jpg", "0005.jpg"],
        "9": ["0002.jpg", "0003.jpg"],
        "10": ["0001.jpg"],
    }
    assert records.describe(0).endswith("images/0006.jpg")
    assert records.read(0).startswith(b"\xff\xd8")


def test_images_that_are_not_listed(packed):
    told = []
    records = open_records(
        packed("0001.jpg\ta\n0002.jpg\tb\n0003.jpg\ta\n0004.jpg\ta\n"), warn=told.append
    )
    assert people_of(records) == {"a": ["0001.jpg", "0003.jpg", "0004.jpg"], "b": ["0002.jpg"]}
    assert any("2 images are not in" in text for text in told)


@pytest.mark.parametrize(
    "text",
    ["", "some words about the data\n", "0001.jpg\ta\n0001.jpg\tb\n", "x.jpg\t1\ny.jpg\t2\n"],
)
def test_texts_that_are_no_list_of_these(packed, text):
    assert people_of(open_records(packed(text))).keys() == {"images"}


def test_folders_of_persons_are_stronger_than_a_list(write_faces):
    root = write_faces({"Ann": 1, "Bob": 1})
    (root / "list.txt").write_text("Ann/0001.jpg\t1\nBob/0001.jpg\t1\n")
    assert list(open_records(root).identity_names) == ["Ann", "Bob"]


def test_paddle_sample(lfw_tar):
    samples = lfw_tar.parent / "format-samples" / "arcface_paddle-test_tipc"
    records = open_records(samples / "small_dataset.tar")
    assert list(records.identity_names) == [str(i) for i in range(10)]
    assert len(records) == 10
    assert records.file_name(9) == "00000672.jpg"


@pytest.mark.parametrize(
    "text, warned",
    [
        ("1/0001.jpg\tAnn\n2/0002.jpg\tBob\n", True),
        ("1/0001.jpg\t1\n1/0002.jpg\t1\n", False),  # agrees
        ("Ann\t3\nBob\t2\n", False),  # people and counts
    ],
)
def test_a_list_that_says_otherwise_than_folders_is_spoken_of(write_faces, text, warned):
    root = write_faces({"1": 2, "2": 2}, folder="set")
    (root / "label.txt").write_text(text)
    told = []
    assert list(open_records(root, warn=told.append).identity_names) == ["1", "2"]
    assert any("give the path of that list" in each for each in told) == warned
