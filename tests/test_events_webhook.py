"""Webhooks: signed, told apart by their answers, and never hanging; against a real HTTP server."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from numbered_events import numbered
from webhook_receiver import PATIENCE_S, SECRET, Answer, Receiver

from edge_fr.errors import DeliveryError, InputError, RefusedError
from edge_fr.events import Letter, WebhookDelivery, to_line
from edge_fr.events.webhook import sign

LETTER = Letter.of(to_line(numbered(1)))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as it:
        yield it


def delivery(receiver: Receiver, timeout_s: float = PATIENCE_S) -> WebhookDelivery:
    return WebhookDelivery(receiver.url, secret=SECRET, timeout_s=timeout_s)


def test_the_signature_is_that_of_the_published_example() -> None:
    # From the Standard Webhooks libraries' own tests.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_event_arrives_signed_with_its_id_and_the_time(receiver: Receiver) -> None:
    sender = delivery(receiver)
    before = int(time.time())
    sender.deliver(LETTER)
    sender.close()
    (post,) = receiver.taken
    assert post.signed
    assert post.path == "/events"
    assert post.body == LETTER.body
    assert post.headers["webhook-id"] == LETTER.event_id
    assert before <= int(post.headers["webhook-timestamp"]) <= time.time()
    assert post.headers["content-type"] == "application/json"


def test_a_connection_is_used_again_and_made_anew_when_the_server_restarts(receiver: Receiver) -> None:
    sender = delivery(receiver)
    sender.deliver(LETTER)
    sender.deliver(LETTER)
    assert receiver.connections == 1
    receiver.stop()
    receiver.start()
    sender.deliver(LETTER)
    sender.close()
    assert receiver.connections == 2
    assert len(receiver.taken) == 3


@pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
def test_an_answer_about_the_event_refuses_it(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda post: Answer(status, body=b"no such\ncamera")
    sender = delivery(receiver)
    with pytest.raises(RefusedError, match=rf"answered {status} .*: no such camera"):
        sender.deliver(LETTER)
    sender.close()


@pytest.mark.parametrize("status", [301, 401, 403, 404, 408, 429, 500, 502, 503])
def test_any_other_answer_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda post: Answer(status, {"location": "http://127.0.0.1:1/"})
    sender = delivery(receiver)
    with pytest.raises(DeliveryError, match=f"answered {status}") as caught:
        sender.deliver(LETTER)
    sender.close()
    assert caught.value.answered
    assert caught.value.retry_after_s is None
    assert len(receiver.posts) == 1


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        ("120", 120, 120),
        ("in fifty minutes", 1000, 3000),  # a date relative to now: the test may be slow, not fast
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_the_pause_that_a_server_asks_for_is_known(
    receiver: Receiver, header: str, least_s: float, most_s: float
) -> None:
    if header == "in fifty minutes":  # from here on, and not from when the tests were collected
        header = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3000))
    receiver.answer = lambda post: Answer(429, {"retry-after": header})
    sender = delivery(receiver)
    with pytest.raises(DeliveryError) as caught:
        sender.deliver(LETTER)
    sender.close()
    assert caught.value.retry_after_s is not None
    assert least_s <= caught.value.retry_after_s <= most_s


def test_a_pause_that_says_nothing_is_no_pause(receiver: Receiver) -> None:
    receiver.answer = lambda post: Answer(503, {"retry-after": "soon"})
    sender = delivery(receiver)
    with pytest.raises(DeliveryError) as caught:
        sender.deliver(LETTER)
    sender.close()
    assert caught.value.retry_after_s is None


def test_a_server_that_is_not_there_is_named(receiver: Receiver) -> None:
    receiver.stop()
    with pytest.raises(
        DeliveryError, match=rf"http://127\.0\.0\.1:{receiver.port} cannot be reached"
    ) as caught:
        delivery(receiver).deliver(LETTER)
    assert not caught.value.answered


@pytest.mark.parametrize(
    "drip", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n"]
)
def test_a_server_that_says_a_little_for_ever_is_given_up(drip: bytes) -> None:
    over = threading.Event()

    def speak(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(drip)
                while not over.wait(0.05):
                    if drip:
                        connection.sendall(b"x")
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        sender = WebhookDelivery(url, secret=SECRET, timeout_s=0.5)
        with pytest.raises(
            DeliveryError, match=r"cannot be reached: (no whole answer within 0\.5 s|timed out)"
        ):
            sender.deliver(LETTER)
        over.set()
        thread.join()


def test_a_server_that_speaks_no_http_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                asked = b""
                while LETTER.body not in asked:  # what is sent to a closed connection would be another error
                    asked += connection.recv(65536)
                connection.sendall(b"220 smtp.example.org\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        sender = WebhookDelivery(url, secret=SECRET, timeout_s=PATIENCE_S)
        with pytest.raises(DeliveryError, match="cannot be reached: 220 smtp"):
            sender.deliver(LETTER)
        thread.join()


def test_a_long_answer_is_not_read_to_its_end(receiver: Receiver) -> None:
    receiver.answer = lambda post: Answer(500, body=b"x" * 1_000_000)
    sender = delivery(receiver)
    with pytest.raises(DeliveryError) as caught:
        sender.deliver(LETTER)
    assert len(str(caught.value)) < 300
    receiver.answer = lambda post: Answer()
    sender.deliver(LETTER)
    sender.close()
    assert len(receiver.taken) == 1


def test_a_server_without_a_certificate_of_an_authority_is_not_trusted(receiver: Receiver) -> None:
    url = receiver.url.replace("http", "https")
    sender = WebhookDelivery(url, secret=SECRET, timeout_s=PATIENCE_S)
    with pytest.raises(DeliveryError, match="cannot be reached") as caught:
        sender.deliver(LETTER)  # a server that speaks no TLS at all
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert receiver.posts == []


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://host/x", "starts with https:// or http://, got ftp://"),
        ("host/x", "got none://"),
        ("https:///path", "starts with https://"),
        ("https://user:hunter2@host/x", "the address of the webhook at host holds a user or a password"),
        ("https://host:port/", "is no URL"),
        ("https://host/a b", "percent-encoded"),
        ("https://host/ä", "percent-encoded"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(url: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        WebhookDelivery(url, secret=SECRET)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "secret", ["", "hunter2", "whsec_", "whsec_aHVudGVyMg==", "whsec_hunter2!", "whsec_ä"]
)
def test_a_weak_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(InputError, match="openssl rand -base64 32") as caught:
        WebhookDelivery("https://host/", secret=secret)
    assert "hunter2" not in str(caught.value)
    assert "aHVudGVyMg" not in str(caught.value)


def test_no_message_names_the_secret_or_the_path() -> None:
    url = f"http://127.0.0.1:1/hook/token-{'t' * 20}?key=k-{'k' * 20}"
    sender = WebhookDelivery(url, secret=SECRET)
    with pytest.raises(DeliveryError) as caught:
        sender.deliver(LETTER)
    for text in (repr(sender), str(caught.value)):
        assert "http://127.0.0.1:1" in text
        assert "ttt" not in text
        assert "kkk" not in text
        assert SECRET not in text
        assert SECRET.removeprefix("whsec_") not in text
