"""Rows read are the rows of the file, or a message names the line: nothing is shifted, swallowed or lost in silence."""

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import random

import pytest

from distil_nlp.data import load_splits
from distil_nlp.errors import UserError

pytestmark = pytest.mark.integration

LINES = [f"good film {i},{('neg', 'pos')[i % 2]}" for i in range(6)]


def commas(*more: str, header: str = "text,label") -> str:
    """Return a CSV file of six good rows, more lines, and six good rows."""
    return "\n".join([header, *LINES, *more, *LINES, ""])


def tabs(*more: str) -> str:
    return commas(*(line.replace("\t", "<tab>") for line in more)).replace(",", "\t").replace("<tab>", "\t")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def read(tmp_path):
    """Return a function: (name, content) → the rows that a file, its folder and its streams have alike."""

    def rows(name: str, content: str | bytes, evaluation: bool = False) -> list[dict]:
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        file = folder / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        if evaluation:
            (folder / f"train.{name.split('.', 1)[1]}").write_text(tabs() if ".tsv" in name else commas())
        split = file.name.split(".")[0]
        readings = [list(load_splits(str(folder), streaming=streamed)[split]) for streamed in (False, True)]
        if not evaluation:
            readings += [list(load_splits(str(file), streaming=streamed)["train"]) for streamed in (False, True)]
        assert all(reading == readings[0] for reading in readings)
        return readings[0]

    return rows


READ = {
    "TSV whose text opens with a quote": ("tsv", tabs('"good one,pos'), 13, '"good one'),
    "TSV of two such texts": ("tsv", tabs('"good one,pos', *LINES, '"bad,neg'), 20, '"good one'),
    "TSV of a quote that opens and one that closes": (
        "tsv",
        tabs('"good one,pos', *LINES, 'bad",neg'),
        20,
        '"good one',
    ),
    "TSV whose last text opens with a quote": ("tsv", tabs().rstrip("\n") + '\n"good\tpos', 13, '"good'),
    "TSV that is quoted": ("tsv", tabs('"a ""b""\nc\td",pos'), 13, 'a "b"\nc\td'),
    "TSV whose text is in quotes": ("tsv", tabs('"a b",pos'), 13, "a b"),
    "quoted CSV of several lines": ("csv", commas('"Hello, ""you""\nthere",pos'), 13, 'Hello, "you"\nthere'),
    "an inch sign in a CSV": ("csv", commas('5" screen,pos'), 13, '5" screen'),
    "a byte-order mark": ("csv", "\ufeff" + commas(), 12, "good film 5"),
    "carriage returns": ("csv", commas().replace("\n", "\r"), 12, "good film 5"),
    "both line ends": ("tsv", tabs('"good one,pos').replace("\n", "\r\n"), 13, '"good one'),
    "blank lines": ("csv", commas("", "   ", ""), 12, "good film 5"),
    "a column without a name, as pandas writes its index": ("csv", commas(header="text,"), 12, "good film 5"),
    "a text of a megabyte": ("csv", commas('"' + "x," * 500_000 + '",pos'), 13, "x," * 500_000),
    "an array of JSON": ("jsonl", json.dumps([{"text": "a", "label": i} for i in range(4)]), 4, "a"),
}


@pytest.mark.parametrize("name", READ)
def test_rows_are_the_lines_of_the_file(read, name):
    """Prevents half of a TSV file from being lost within texts that two stray quotes enclose."""
    kind, content, count, text = READ[name]
    rows = read(f"train.{kind}", content)
    assert len(rows) == count
    assert text in [row["text"] for row in rows]
    assert len({row.get("label", "") for row in rows}) < 5


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_a_compressed_file_is_read_as_what_it_holds(read, suffix, compress):
    """Prevents other rows, or an unknown format, for the same file in a smaller form."""
    assert len(read(f"train.tsv{suffix}", compress(tabs('"good one,pos').encode()))) == 13
    with pytest.raises(UserError, match=f"train.csv{suffix} / got a quote that opens in line 8 and never closes"):
        read(f"train.csv{suffix}", compress(commas('"good,pos').encode()))


REFUSED = {
    "a comma at each line's end": ("csv", "text,label,source\na,neg,web,\nb,pos,web,\n", "3 fields .* got 4 in line 2"),
    "a comma in each text": ("csv", "text,label\na, b,neg\nc, d,pos\n", "2 fields in each line .* got 3 in line 2"),
    "a comma in one text": ("csv", commas("a, b,neg"), "got 3 in line 8: 'a, b,neg' / columns would be shifted"),
    "a short line": ("csv", commas("a"), "got 1 in line 8: 'a' / its last columns would be empty"),
    "a line break in a text": ("csv", commas("a\rb,neg"), "got 1 in line 8"),
    "an end of file of DOS": ("csv", commas() + "\x1a", "got 1 in line 14"),
    "a quote that never closes": ("csv", commas('"good one,pos'), "a quote that opens in line 8 and never closes"),
    "two of them": ("csv", commas('"good,pos', *LINES, '"bad,neg'), "opens in line 8 and closes in line 15, within"),
    "one that closes by chance": ("csv", commas('"good,pos', *LINES, 'bad",neg'), "in line 8 and closes in line 15: "),
    "such among numbers": ("csv", 'id,text,y\n1,"a,0.5\n2,b,0.2\n3,c",0.1\n4,d,0.7\n', "line 2 and closes in line 4"),
    "a quotation that opens a text": ("csv", commas('"Great" they said,pos'), "after a closing quote in line 8"),
    "Spark's quotes": (
        "csv",
        commas('"he said \\"hi\\" ok",pos'),
        r"in line 8: .* rather than write \\\\? ?\\?\"|Spark",
    ),
    "Spark's quotes and a comma": ("csv", commas('"a \\", b",pos'), "got 3 in line 8"),
    "semicolons": ("csv", commas().replace(",", ";"), "expected columns separated by commas .* got semicolons"),
    "tabs": ("csv", tabs(), r"got tabs: .* end its name in \.tsv"),
    "commas in TSV": ("tsv", commas(), r"got commas: .* end its name in \.csv"),
    "a tab in a text, beside a quote": ("tsv", tabs('"good one,pos', "a\tb,neg"), "got 3 in line 9"),
    "a NUL": ("csv", commas("a\0b,pos"), "got a NUL in line 8"),
    "UTF-16": ("csv", commas().encode("utf-16"), "UTF-8 in train.csv / got UnicodeDecodeError"),
    "UTF-16 without its mark": ("tsv", tabs().encode("utf-16-le"), "got a NUL in line 1"),
    "Latin-1": ("csv", commas("café,pos").encode("latin-1"), "UTF-8 in train.csv / got UnicodeDecodeError"),
    "a column twice": ("csv", commas(header="text,text"), "each column once .* 'text' more than once"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("evaluation", [False, True], ids=["train", "test"])
def test_a_line_that_is_no_row_is_named(read, name, evaluation):
    """Prevents columns that are shifted by one, and texts that hold other rows and their labels."""
    kind, content, message = REFUSED[name]
    message = message.replace("train.csv", "test.csv") if evaluation else message
    with pytest.raises(UserError, match=message):
        read(f"{'test' if evaluation else 'train'}.{kind}", content, evaluation)


ROW = json.dumps({"text": "a", "label": 1}) + "\n"
BROKEN = {
    "a last line that was cut": (ROW * 4 + '{"text": "b", "la', "line 5 is not JSON"),
    "a comma at each line's end": (ROW.replace("\n", ",\n") * 3, "line 1 is not JSON"),
    "a line in the middle": (ROW * 2 + '{"text": a}\n' + ROW, "line 3 is not JSON"),
    "a line of something else": (ROW * 2 + '"a"\n' + ROW, "line 3 is not an object of columns"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_of_json_is_named(tmp_path, name):
    """Prevents "in row 0" of a part of the file, and advice on columns for a download that broke off."""
    content, message = BROKEN[name]
    file = tmp_path / "train.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"got train\.jsonl: {message}"):
        load_splits(str(file))


def test_files_are_looked_at_once(tmp_path, monkeypatch, caplog):
    """Prevents seconds at each start for files that an earlier run has read; a changed file is looked at anew."""
    caplog.set_level(logging.INFO, logger="distil_nlp")
    file = tmp_path / "train.tsv"
    for content, said in ((tabs('"a,pos'), 1), (None, 0), (tabs('"a,pos', '"b,neg'), 1)):
        file.write_text(content) if content else None
        caplog.clear()
        load_splits(str(file))
        assert caplog.text.count("read without quoting") == said


def test_a_readme_that_says_how_to_read_is_believed(tmp_path):
    """Prevents a refusal of files whose reading their owner has described."""
    config = "---\nconfigs:\n- config_name: default\n  data_files: train.csv\n  sep: ';'\n  quoting: 3\n---\n"
    (tmp_path / "README.md").write_text(config)
    (tmp_path / "train.csv").write_text('text;label\n"a;1\nb;0\n')
    assert load_splits(str(tmp_path))["train"]["text"][:] == ['"a', "b"]


@pytest.mark.parametrize("seed", range(10))
def test_any_rows_that_are_written_are_read(tmp_path, seed):
    """Prevents a refusal of good files, or other rows than were written, whatever the texts hold."""
    draw = random.Random(seed)
    pieces = [
        "a",
        "good film",
        '"',
        '""',
        ",",
        "\t",
        "\n",
        "\r\n",
        ";",
        " ",
        "'",
        "\\",
        "é",
        "\u2028",
        "#",
        "neg",
        ",neg\n",
    ]
    rows = [
        ["".join(draw.choices(pieces, k=draw.randint(1, 6))) + "x", f"class {draw.randrange(3)}"] for _ in range(40)
    ]
    for delimiter, name in ((",", "train.csv"), ("\t", "train.tsv")):
        table = io.StringIO(newline="")
        csv.writer(table, delimiter=delimiter).writerows([["text", "label"], *rows])
        (tmp_path / name).write_bytes(table.getvalue().encode())
        read = load_splits(str(tmp_path / name))["train"]
        assert [list(row.values()) for row in read] == rows
