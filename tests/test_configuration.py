"""A site's file: what it takes, what it refuses, and that secrets stand elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fr.configuration import Site, read_site, schema
from edge_fr.errors import InputError
from edge_fr.references import expand, expand_address
from edge_fr.stream.uri import parse

SITE = """
gallery: people.db
defaults:
  fps: 10
  min_side_px: 20
  tiles: 4
cameras:
  door:
    source: rtsp://viewer:${env:DOOR_PASSWORD}@10.0.0.5/stream
    region: [0.0, 0.25, 1.0, 1.0]
    tiles: 0
  yard:
    source: test://
    fps: 2
events:
  outbox: outbox.db
  webhook: {url: https://hooks.example/faces, secret: "${file:/run/secrets/hook}"}
  mqtt: {url: mqtts://broker, topic: edge-fr/gate, username: box, password: "${env:MQTT_PASSWORD}"}
metrics: {port: 9464}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as error:
        read_site(write(folder, text))
    return str(error.value)


@pytest.mark.parametrize(
    ("written", "protocol"), [("", "5"), (", protocol: 5", "5"), (", protocol: 3.1.1", "3.1.1")]
)
def test_a_broker_s_protocol_is_said_as_it_is_called(tmp_path: Path, written: str, protocol: str) -> None:
    text = "cameras: {a: {source: 'test://'}}\nevents: {outbox: o.db, mqtt: {url: 'mqtt://x', topic: t%s}}"
    mqtt = read_site(write(tmp_path, text % written)).events.mqtt
    assert mqtt is not None
    assert mqtt.protocol == protocol
    assert "events.mqtt.protocol: Input should be '5' or '3.1.1'" in refused(tmp_path, text % ", protocol: 4")


def test_a_site_is_read_and_every_camera_has_the_defaults_it_does_not_change(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, SITE))
    assert list(site.cameras) == ["door", "yard"]
    assert (site.look("door").fps, site.look("yard").fps) == (10, 2)
    assert site.look("yard").min_side_px == 20
    assert site.look("door").region == (0.0, 0.25, 1.0, 1.0)
    assert site.look("yard").region is None
    assert (site.look("door").tiles, site.look("yard").tiles) == (0, 4)


def test_the_sample_is_a_site() -> None:
    site = read_site(Path(__file__).parents[1] / "samples" / "site.yaml")
    assert site.look("yard").fps == 4
    assert site.look("door").fps == 10


def test_every_fault_is_told_by_its_place_in_one_go(tmp_path: Path) -> None:
    message = refused(
        tmp_path,
        """
galery: people.db
cameras:
  door: {source: test://, fps: 0, retion: 1}
  "back yard": {}
metrics: {port: 99999}
""",
    )
    for line in (
        "  galery: Extra inputs are not permitted",
        "  cameras.door.fps: Input should be greater than 0",
        "  cameras.door.retion: Extra inputs are not permitted",
        "  cameras.back yard.source: Field required",
        "  metrics.port: Input should be less than or equal to 65535",
    ):
        assert line in message.splitlines()


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("cameras: {door: {source: 'rtsp://admin:hunter2@10.0.0.5/'}}", "cameras.door.source"),
        (
            "cameras: {a: {source: 'test://'}}\n"
            "events: {outbox: o.db, webhook: {url: 'https://x', secret: hunter2}}",
            "events.webhook.secret",
        ),
        (
            "cameras: {a: {source: 'test://'}}\n"
            "events: {outbox: o.db, mqtt: {url: 'mqtt://x', topic: t, password: hunter2}}",
            "events.mqtt.password",
        ),
    ],
)
def test_a_secret_written_out_is_refused_and_not_repeated(tmp_path: Path, line: str, place: str) -> None:
    message = refused(tmp_path, line)
    assert f"  {place}: " in message
    assert "write ${env:NAME} or ${file:/path}" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cameras: {a: {source: 'test://'}, a: {source: 'test://'}}", "'a' is there twice"),
        ("cameras: {1: {source: 'test://'}}", "the key 1 is no text"),
        ("cameras: {}", "cameras: Dictionary should have at least 1 item"),
        ("cameras: {'a/b': {source: 'test://'}}", "camera name 'a/b' holds a space"),
        ("cameras: {a: {source: 'test://'}}\nevents: {mqtt: {url: m, topic: t}}", "need outbox, the file"),
        ("cameras: {a: {source: 'test://'}}\nevents: {outbox: o.db}", "would fill for nobody"),
        ("- a\n- b", "expected keys and values, got list"),
        ("a: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
    ],
)
def test_what_means_nothing_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refused(tmp_path, text)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no configuration at .*absent\.yaml"):
        read_site(tmp_path / "absent.yaml")
    path = tmp_path / "site.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        read_site(path)


def test_references_stand_for_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pa$$ ${env:OTHER}\n")
    text = f"rtsp://${{env:USER_NAME}}:${{file:{tmp_path}/secret}}@host/"
    # what a reference stands for is not expanded again
    assert expand(text, "door", {"USER_NAME": "viewer"}) == "rtsp://viewer:pa$$ ${env:OTHER}@host/"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("rtsp://v:${env:P}@h/live", "rtsp://v:p%40%2F%3F%23%3A%2541%20%C3%A4@h/live"),
        ("rtsp://${env:P}:${env:P}@h/", "rtsp://{0}:{0}@h/".format("p%40%2F%3F%23%3A%2541%20%C3%A4")),
        (
            "rtsp://h/user=v&password=${env:P}&ch=1",
            "rtsp://h/user=v&password=p%40%2F%3F%23%3A%2541%20%C3%A4&ch=1",
        ),
        ("http://h/v?token=${env:T}", "http://h/v?token=ab%2Fcd%3D"),
        ("rtsp://h/${env:T}", "rtsp://h/ab/cd="),
        ("rtsp://${env:BOTH}@h/", "rtsp://v:p%40/@h/".replace("/@", "%2F@")),
        ("rtsp://${env:HOST}/live", "rtsp://10.0.0.5:554/live"),
        ("rtsp://v:${env:P}@${env:HOST}/", "rtsp://v:p%40%2F%3F%23%3A%2541%20%C3%A4@10.0.0.5:554/"),
        ("${env:WHOLE}", "rtsp://v:p%40@h/"),
        ("${env:DIR}/clip.mp4", "/a b/clip.mp4"),
    ],
)
def test_what_a_reference_stands_for_is_encoded_where_it_becomes_part_of_an_address(
    text: str, address: str
) -> None:
    there = {
        **{"P": "p@/?#:%41 ä", "T": "ab/cd=", "BOTH": "v:p@/", "HOST": "10.0.0.5:554"},
        **{"WHOLE": "rtsp://v:p%40@h/", "DIR": "/a b"},
    }
    assert expand_address(text, "door", there).address == address


def test_secrets_that_an_address_is_made_of_are_never_shown() -> None:
    text = "rtsp://h/${env:TOKEN}/live?x=${env:OTHER}"
    uri, secrets = expand_address(text, "door", {"TOKEN": "ab cd/ef", "OTHER": "k#1@2"})
    address = parse(uri, secrets)
    assert address.target == "rtsp://h/ab%20cd/ef/live?x=k%231%402"
    assert (address.shown, address.camera) == ("rtsp://h/***/live?x=***", "h/***/live")
    assert address.hide("no h at ab cd/ef, ab%20cd/ef and k%231%402") == "no h at ***, *** and ***"
    said = parse("rtsp://v:p%40ss@h/").hide("v and p@ss and p%40ss are wrong at rtsp://v:p%40ss@h/")
    assert said == "v and *** and *** are wrong at rtsp://***@h/"


def test_a_user_may_be_a_reference_and_a_password_may_be_none(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    for source in (
        "rtsp://${env:U}:${file:/run/secrets/p@w}@h/",
        "rtsp://${env:BOTH}@h/",
        "rtsp://admin:@h/",
    ):
        path.write_text(f"cameras: {{a: {{source: '{source}'}}}}")
        assert read_site(path).cameras["a"].source == source
    for source in ("RTSP://v:hunter2@h/", "rtsp://${env:U}:hunter2@h/", "http://v:hunter${env:P}@h/"):
        path.write_text(f"cameras: {{a: {{source: '{source}'}}}}")
        with pytest.raises(InputError, match="the password in the address stands elsewhere") as refusal:
            read_site(path)
        assert "hunter" not in str(refusal.value)


@pytest.mark.parametrize(
    "value", ["*hunter2", "'hunter2", "rtsp://v:hunter2@h/: x: [", "!hunter2 x", "@hunter2"]
)
def test_a_file_that_is_no_yaml_is_refused_without_its_text(tmp_path: Path, value: str) -> None:
    message = refused(tmp_path, f"cameras: {{a: {{source: 'test://'}}}}\nevents: {value}")
    assert "line " in message
    assert "hunter2" not in message


def test_a_reference_to_nothing_names_the_place_and_the_reference(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cameras\.door\.source: the environment variable NOPE is not set"):
        expand("${env:NOPE}", "cameras.door.source", {})
    with pytest.raises(InputError, match=r"hook: the file .*absent cannot be read: No such file"):
        expand(f"${{file:{tmp_path}/absent}}", "hook")


def test_the_schema_is_printed_and_says_what_the_file_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_fr.configuration"], capture_output=True, text=True, check=True
    )
    printed = json.loads(done.stdout)
    assert printed == schema()
    assert set(printed["properties"]) == set(Site.model_fields)
    assert printed["additionalProperties"] is False


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
KEYS = st.sampled_from(
    [*Site.model_fields, "door", "source", "fps", "region", "webhook", "secret", "port", ""]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=TREES)
def test_any_tree_is_a_site_or_refused(tmp_path: Path, tree: object) -> None:
    with suppress(InputError):
        assert isinstance(read_site(write(tmp_path, yaml.safe_dump(tree))), Site)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=st.text(max_size=60), cut=st.integers(0, len(SITE)))
def test_any_text_within_a_site_is_read_or_refused(tmp_path: Path, text: str, cut: int) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE[:cut] + text + SITE[cut:], encoding="utf-8", errors="surrogatepass")
    with suppress(InputError):
        assert isinstance(read_site(path), Site)


@pytest.mark.parametrize("written", ["16:9", '"16:9"', "4:3", "960:576"])
def test_an_aspect_is_read_as_it_is_written_though_yaml_counts_to_sixty(written: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(
        f"cameras:\n  door:\n    source: test://\n    rotate: 270\n    flip: true\n    aspect: {written}\n"
    )
    door = read_site(path).cameras["door"]
    assert (door.rotate, door.flip, door.aspect) == (270, True, written.strip('"'))


@pytest.mark.parametrize("line", ["rotate: 45", "aspect: wide", "aspect: 0:9", "flip: sideways"])
def test_a_mounting_that_makes_no_sense_names_its_place(line: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"cameras:\n  door:\n    source: test://\n    {line}\n")
    with pytest.raises(InputError, match=rf"cameras\.door\.{line.partition(':')[0]}"):
        read_site(path)
