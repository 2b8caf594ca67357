"""Tables as other programs write them: read for what they mean, or refused with what to write."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from tables import fill, table

from trickbag.data.audit import audit
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.ground.errors import UsageError

pytestmark = pytest.mark.usefixtures("cache")


def csv(folder: Path, content: str | bytes, name: str = "m.csv") -> Path:
    """A table beside three images."""
    fill(folder, "img/1.jpg", "img/2.jpg", "img/3.jpg")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def said(images: Images) -> list[str]:
    return [f"{finding.severity}: {finding.message}" for finding in audit(images).findings if finding.kind == "reading"]


PLAIN = "path,label,split\nimg/1.jpg,cät,train\nimg/2.jpg,dog,\nimg/3.jpg,dog,test\n"
WRITTEN = {
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "bars": PLAIN.replace(",", "|").encode(),
    "utf-16 of Excel": PLAIN.replace(",", "\t").encode("utf-16"),
    "utf-16 without a mark": PLAIN.encode("utf-16-le"),
    "utf-16 of a big-endian machine": PLAIN.encode("utf-16-be"),
    "cp1252": PLAIN.encode("cp1252"),
    "spaces after commas": PLAIN.replace(",", ", ").encode(),
    "spaces before commas": PLAIN.replace(",", " ,").encode(),
    "backslashes": PLAIN.replace("/", "\\").encode(),
    "backslashes and a dot": PLAIN.replace("img/", ".\\img\\").encode(),
    "quotes": b'"path","label","split"\r\n"img/1.jpg","c\xc3\xa4t","train"\r\nimg/2.jpg,"dog",""\r\n"img/3.jpg","dog",test',
    "an index of pandas": b",path,label,split\n0,img/1.jpg,c\xc3\xa4t,train\n1,img/2.jpg,dog,\n2,img/3.jpg,dog,test\n",
    "names without a folder": PLAIN.replace("img/", "").encode(),
    "ids without folder and extension": PLAIN.replace("img/", "").replace(".jpg", "").encode(),
    "ids without an extension": PLAIN.replace(".jpg", "").encode(),
    "a line for Excel": f"sep=;\r\n{PLAIN.replace(',', ';')}".encode(),
    "other names of columns": PLAIN.replace("path,label,split", "File Name,class_name,subset").encode(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_read_however_programs_write_it(tmp_path: Path, name: str) -> None:
    for ending in ("csv", "tsv"):
        images = read(csv(tmp_path, WRITTEN[name], f"m.{ending}"))
        assert table(images) == {"img/1.jpg": ("cät", "train"), "img/2.jpg": ("dog", ""), "img/3.jpg": ("dog", "test")}


def test_names_that_need_what_is_mended_elsewhere_are_kept(tmp_path: Path) -> None:
    """Backslashes, spaces and bytes that are no UTF-8 stay where a file is called so, in the class of a Windows label too."""
    latin = os.fsdecode(b"caf\xe9.jpg")
    fill(tmp_path, "a\\1.jpg", " b.jpg", latin, "über.jpg", "c.jpg")
    (tmp_path / "m.csv").write_bytes(
        b"label,path\nx,a\\1.jpg\nx, b.jpg\ncaf\xe9,caf\xe9.jpg\ny,\xfcber.jpg\ny,c.jpg \n",
    )
    assert table(read(tmp_path / "m.csv")) == {
        "a\\1.jpg": ("x", ""), " b.jpg": ("x", ""), latin: ("café", ""), "über.jpg": ("y", ""), "c.jpg": ("y", ""),
    }  # fmt: skip


def test_what_is_understood_is_told_once(tmp_path: Path) -> None:
    images = read(csv(tmp_path, "image_id;Category;Patient ID;age\n1;cat;p1;3\n2;dog;p1;4\n3;dog;p2;4\n"))
    assert said(images) == [
        "note: m.csv: the column 'image_id' is read as path.",
        "note: m.csv: the column 'Category' is read as label.",
        "warning: m.csv: not used: the columns 'Patient ID', 'age'.",
        "note: m.csv: '1' is found as 'img/1.jpg', and so are the others.",
    ]
    (unused,) = (finding for finding in audit(images).findings if "not used" in finding.message)
    assert "'Patient ID' has 2 values for 3 images" in unused.suggestion
    assert "name the column group" in unused.suggestion
    grouped = read(csv(tmp_path, "image_id;Category;group;age\n1;cat;p1;3\n2;dog;p1;4\n3;dog;p2;4\n"))
    assert grouped.groups.tolist() == [0, 0, 2]
    assert "group" not in " ".join(finding.suggestion for finding in audit(grouped).findings if finding.kind == "reading")
    assert said(read(csv(tmp_path, PLAIN))) == []


def rows(*labels: object) -> str:
    return "path,label\n" + "".join(f'{n}.jpg,"{label}"\n' for n, label in enumerate(labels))


REFUSED = {
    "one-hot": (
        "filename,cat,dog,bird\n1.jpg,1,0,0\n2.jpg,0,1,0\n",
        r"a column of 0 and 1 for each class \('cat', 'dog', 'bird'\)\. Write the name of each image's one class",
    ),
    "several of many": ("filename, cat, dog\n1.jpg, 1, 1\n2.jpg, 0, 1\n", r"Some images have several, which trickbag does not"),
    "bars": (rows("cat", "dog", "cat|dog"), r"'cat\|dog' names several classes.*one class"),
    "commas": (rows("cat", "dog", "cat, dog"), r"'cat, dog' names several classes"),
    "a list": (rows("['cat', 'dog']", "['dog']"), r"names several classes"),
    "measurements": (rows(*(n / 7 for n in range(9))), r"numbers that were measured.*predicts no numbers: write classes"),
    "measurements that repeat": (rows(*(n % 40 / 4 for n in range(400))), r"40 values for 400 images"),
    "counts": (rows(*range(50)), r"50 values for 50 images"),
    "two paths": ("image,filename,label\n1.jpg,1.jpg,x\n", r"one column path is needed \(it may be 'image' or 'filename'\)"),
    "no label": ("id,breed\n1,pug\n", r"line 1: one column path is needed in 'id', 'breed'"),
    "a path that may be two": ("path,label\n1,x\n2,y\n", r"'1' may be 'img/1.jpg' and 'mask/1.png'"),
    "odd utf-16": ("path,label\n1.jpg,x\n".encode("utf-16") + b"a", "not text in UTF-16"),
    "zeros": (bytes(4096), "one column path is needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_of_classes_is_refused_with_what_to_write(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "mask/1.png", "mask/2.png")
    content, message = REFUSED[name]
    with pytest.raises(UsageError, match=message) as refused:
        read(csv(tmp_path, content))
    assert len(str(refused.value)) < 400


LEGAL = {
    "names with commas": ["tench, Tinca tinca", "crane, bird", "crane, machine", "goldfish"],
    "versions": [n % 5 / 2 for n in range(30)],
    "digits": [n % 10 for n in range(30)],
    "few": [0.5, 1, 2],
    "lists in words": ["[sic]", "a|b"],
}


@pytest.mark.parametrize("name", LEGAL)
def test_names_that_only_look_like_more_are_classes(tmp_path: Path, name: str) -> None:
    labels = LEGAL[name]
    assert set(read(csv(tmp_path, rows(*labels))).classes) == set(map(str, labels))


def test_other_tables_are_named(tmp_path: Path) -> None:
    for name in ("m.xlsx", "m.ods", "m.jsonl"):
        with pytest.raises(UsageError, match=r"is a table that cannot be read. Save it as CSV in UTF-8"):
            read(csv(tmp_path, b"PK\3\4", name))


def test_the_first_missing_path_is_named(tmp_path: Path) -> None:
    images = read(csv(tmp_path, "path,label\nC:\\photos\\1.jpg,x\nC:\\photos\\2.jpg,y\n"))
    (error,) = audit(images).errors
    assert error.message == f"None of the files is a readable image; the first is C:/photos/1.jpg in {tmp_path}: missing."
    assert error.suggestion == f"Write paths that start at {tmp_path}."


def test_parquet_of_other_programs(tmp_path: Path) -> None:
    """Text that is no UTF-8, categories, missing numbers, and the images themselves."""
    fill(tmp_path, "1.jpg", "2.jpg")
    bad = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0\7\0\0\0"), pa.py_buffer(b"caf\xe9dog")])
    path = tmp_path / "m.parquet"
    parquet.write_table(pa.table({"file_name": ["1.jpg", "2.jpg"], "label": bad}), path)
    assert table(read(path)) == {"1.jpg": ("café", ""), "2.jpg": ("dog", "")}
    parquet.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": pa.array(["a", "b"]).dictionary_encode()}), path)
    assert table(read(path)) == {"1.jpg": ("a", ""), "2.jpg": ("b", "")}
    parquet.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": [0.0, float("nan")]}), path)
    with pytest.raises(UsageError, match=r"row 2: '2.jpg' has the label ''"):
        read(path)
    parquet.write_table(pa.table({"image": [{"bytes": b"x", "path": "1.jpg"}], "label": [1]}), path)
    with pytest.raises(UsageError, match="'image' holds the images themselves, not their paths"):
        read(path)
    parquet.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": [["cat", "dog"], ["cat"]]}), path)
    with pytest.raises(UsageError, match="names several classes"):
        read(path)
