"""The card of a model file: inside it, beside it, or missing with the way to write one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import card
from onnx_files import doubling

from edge_fr.cards import read_card, write_card
from edge_fr.engine import card_path
from edge_fr.errors import CardError, ModelNotFoundError


def write_own(path: Path) -> Path:
    return write_card(
        path,
        task="embed",
        colour="BGR",
        input_range=(-1.0, 1.0),
        licence="MIT",
        training_data="my own",
        embedding_size=64,
    )


def test_a_card_inside_the_file_is_read_without_onnx_and_onnxruntime(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", card(name="inside"))
    code = (
        "import sys; from pathlib import Path; from edge_fr.cards import read_card; "
        "print(read_card(Path(sys.argv[1])).name, 'onnx' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["inside", "False", "False"]


def test_other_metadata_of_the_file_do_not_disturb(tmp_path: Path) -> None:
    model = onnx.load(doubling(tmp_path / "m.onnx", card()))
    model.metadata_props.add(key="author", value="someone")
    model.metadata_props.add(key="empty", value="")
    model.doc_string = "long " * 1000
    model.model_version = -1  # a negative number takes ten bytes
    onnx.save(model, tmp_path / "m.onnx")
    assert read_card(tmp_path / "m.onnx") == card()


def test_a_written_card_is_read_again(tmp_path: Path) -> None:
    path = doubling(tmp_path / "mine.onnx", None)
    assert write_own(path) == card_path(path)
    read = read_card(path)
    assert (read.name, read.colour, read.input_range, read.embedding_size) == ("mine", "BGR", (-1.0, 1.0), 64)
    assert {entry.name for entry in tmp_path.iterdir()} == {"mine.onnx", "mine.card.json"}


def test_a_card_beside_is_refused_once_the_file_has_changed(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", None)
    write_own(path)
    path.write_bytes(path.read_bytes() + b"\x2a\x00")  # an empty domain: another file, the same network
    with pytest.raises(CardError, match=r"was written for a file with sha256:\w+, but .* say what it is"):
        read_card(path)


def test_a_file_without_card_is_refused_with_the_command_that_writes_one(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", None)
    with pytest.raises(CardError, match=rf"edge-fr models card {path} --task embed --colour RGB"):
        read_card(path)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[]", b"{}"])
def test_a_broken_card_beside_is_refused_by_its_name(tmp_path: Path, text: bytes) -> None:
    path = doubling(tmp_path / "m.onnx", None)
    card_path(path).write_bytes(text)
    with pytest.raises(CardError, match=r"m\.card\.json"):
        read_card(path)


def test_a_file_that_is_not_there_has_no_card_and_gets_none(tmp_path: Path) -> None:
    for action in (read_card, write_own):
        with pytest.raises(ModelNotFoundError, match=r"no model file at .*absent\.onnx"):
            action(tmp_path / "absent.onnx")


def test_a_card_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", None)
    card_path(path).mkdir()  # a folder in its place, which the superuser cannot overwrite either
    with pytest.raises(CardError, match=r"m\.card\.json cannot be written"):
        write_own(path)


def test_a_refused_card_leaves_the_old_one(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", None)
    before = write_own(path).read_bytes()
    with pytest.raises(CardError, match="input_range"):
        write_card(
            path,
            task="embed",
            colour="RGB",
            input_range=(1.0, 0.0),
            licence="",
            training_data="",
            embedding_size=1,
        )
    assert card_path(path).read_bytes() == before


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", card())
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CardError):
            read_card(path)


def test_a_web_page_saved_as_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("<html>404: Not Found</html>")
    with pytest.raises(CardError, match=r"m\.onnx is damaged or not an ONNX file \(protobuf wire type 4"):
        read_card(tmp_path / "m.onnx")


def test_what_is_not_onnx_is_refused_and_nothing_worse(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "noise.onnx"
    for size in range(300):
        path.write_bytes(random.bytes(size))
        with pytest.raises(CardError):
            read_card(path)
