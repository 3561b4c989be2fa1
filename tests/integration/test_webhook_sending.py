"""Send messages to a real receiver, which answers well, badly, late, or not at all."""

import socket
import ssl
from pathlib import Path

import pytest

from models.core.callers import ADMIN
from models.webhooks.history import NewTest, send_tests
from models.webhooks.hooks import RotateSecret, mint_secret, rotate_secrets
from runtime.settings import Settings
from runtime.webhooks.addresses import Targets
from runtime.webhooks.sending import Answer, Sender
from testkit.ports import own_port
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import accepted, finished
from tests.support.tcp_server import listening_in_thread
from tests.support.tls import self_signed
from tests.support.webhooks import (
    CUT,
    HANG,
    LOOPBACK,
    REDIRECT,
    Message,
    Receiver,
    matched,
    put,
    receiving,
    sending,
    states,
)


def until_ended(db: DbVerbs) -> None:
    """Wait until no message is pending; each pause is over at once."""

    def ended() -> bool:
        # An attempt in progress keeps its lease.
        db.rows("UPDATE webhook_deliveries SET next_at = now() WHERE state = 'pending' AND lease IS NULL")
        return "pending" not in states(db)

    eventually(ended, every=0.05, what="the end of all messages")


async def test_cookie_of_a_receiver_is_kept_for_no_message() -> None:
    """Names at one address would share it."""
    sender = Sender(Targets((LOOPBACK,)))
    with receiving() as receiver:
        for message_id in ("evt_1", "evt_2"):
            answer = await sender.send(receiver.url, message_id, "{}", [mint_secret()])
            assert answer.status == 204, answer
    await sender.close()
    assert [message.headers.get("cookie") for message in receiver.messages] == [None, None]


def test_message_arrives_signed_by_each_secret(settings: Settings, db: DbVerbs) -> None:
    """Verify it with the library of Standard Webhooks, by the current secret and by the former one."""
    with receiving() as receiver, sending(settings):
        former = put(db, "hook", receiver.url)
        current = mint_secret()
        db.do(rotate_secrets, [RotateSecret(ADMIN, "hook", current)])
        session = finished(db)
        matched(db)
        db.do(send_tests, [NewTest(ADMIN, "hook", "evt_test")])
        until_ended(db)
    end, test = sorted(receiver.messages, key=lambda message: message.id == "evt_test")
    for secret in (former, current):
        assert end.verify(secret)["data"]["session_id"] == session
        assert test.verify(secret)["type"] == "webhook.test"
    assert end.headers["content-type"] == "application/json"
    assert end.headers["host"] == receiver.address
    assert end.headers["user-agent"].startswith("coordinator-webhooks/")
    with pytest.raises(Exception, match="No matching signature"):
        end.verify(mint_secret())
    assert states(db) == ["delivered", "delivered"]


def test_bad_answers_are_retried_and_redirects_not_followed(settings: Settings, db: DbVerbs) -> None:
    """Send the same body under the same id until it is accepted."""
    answers: list[int | str] = [500, CUT, REDIRECT, 429, 200]

    def answer(_: Message) -> int | str:
        return answers.pop(0)

    with receiving(answer) as receiver, sending(settings):
        put(db, "hook", receiver.url)
        finished(db)
        matched(db)
        until_ended(db)
    assert {message.path for message in receiver.messages} == {"/hook"}
    assert len({(message.id, message.text) for message in receiver.messages}) == 1
    row = db.rows("SELECT state, attempts, response_status, error FROM webhook_deliveries")[0]
    assert tuple(row) == ("delivered", 5, 200, None)


def test_hanging_receiver_holds_back_its_own_session_only(settings: Settings, db: DbVerbs) -> None:
    """Go on with other sessions and webhooks while one gets no answer; keep to the bound of a webhook."""

    def answer(message: Message) -> int | str:
        return HANG if message.body["data"]["session_id"] in stuck else 204

    stuck = {finished(db) for _ in range(3)}
    number_all(db)
    with receiving(answer) as receiver, sending(settings):
        put(db, "hook", receiver.url)
        runner = db.runner()
        for session in stuck:
            for _ in range(2):
                db.resume(session)
                (run,) = db.claim(runner)
                accepted(db, run, "started")
                accepted(db, run, "completed")
        others = {finished(db) for _ in range(20)}
        matched(db)
        eventually(lambda: others <= set(receiver.about("session_id")), what="all others")
        eventually(lambda: receiver.open_now == 3, what="the messages without an answer")
        assert sorted(receiver.about("session_id").count(session) for session in stuck) == [1, 1, 1]
        assert receiver.most_open <= 8
        # The lease of the messages that hang is longer than this test.
        eventually(lambda: states(db).count("pending") == 6, what="the records of all others")
        receiver.release()


def test_messages_of_a_session_arrive_in_order(settings: Settings, db: DbVerbs) -> None:
    """Answer every other message badly."""
    answered: list[Message] = []

    def answer(message: Message) -> int:
        answered.append(message)
        return 204 if len(answered) % 2 else 503

    with receiving(answer) as receiver, sending(settings):
        put(db, "hook", receiver.url)
        session, runner = finished(db), db.runner()
        for _ in range(5):
            db.resume(session)
            (run,) = db.claim(runner)
            accepted(db, run, "started")
            accepted(db, run, "completed")
        matched(db)
        until_ended(db)
    ids = [message.id for message in receiver.messages]
    # Each comes again until it is accepted, and only then the next one.
    assert ids == [name for name in dict.fromkeys(ids) for _ in range(ids.count(name))]
    in_order = db.rows("SELECT run_id FROM runs ORDER BY session_seq")
    assert list(dict.fromkeys(receiver.about("run_id"))) == [row.run_id for row in in_order]


def test_receiver_that_is_gone_is_left_alone(settings: Settings, db: DbVerbs) -> None:
    with receiving(lambda _: 410) as receiver, sending(settings):
        put(db, "hook", receiver.url)
        finished(db)
        matched(db)
        until_ended(db)
        finished(db)
        matched(db)
        assert len(receiver.messages) == 1
    assert states(db) == ["failed"]
    assert db.one("SELECT disabled_reason FROM webhooks") == "It answered 410 Gone"


def test_message_is_not_sent_to_private_address(settings: Settings, db: DbVerbs) -> None:
    """Check the address at each attempt, whatever was stored before."""
    with receiving() as receiver:
        put(db, "hook", receiver.url)
        put(db, "secure", receiver.url.replace("http:", "https:"))
        finished(db)
        matched(db)
        with sending(settings, "10.0.0.0/8"):
            eventually(lambda: db.count("webhook_deliveries", "attempts = 1") == 2, what="two attempts")
        assert receiver.messages == []
    errors = {row.error for row in db.rows("SELECT error FROM webhook_deliveries")}
    assert errors == {
        "Should be https",
        "Should lead to public addresses only (COORDINATOR_WEBHOOK_ALLOW names others)",
    }


async def test_attempt_ends_in_time_with_a_reason() -> None:
    """Say why there is no answer: none in time, no connection, an unknown name, a certificate that is not trusted."""
    sender = Sender(Targets([LOOPBACK]), seconds=0.3)

    async def sent(url: str) -> Answer:
        return await sender.send(url, "evt_1", "{}", [mint_secret()])

    with receiving(lambda _: HANG) as receiver:
        assert await sent(receiver.url) == Answer(error="No answer within 0.3 s")
    assert await sent(f"http://127.0.0.1:{own_port()}/") == Answer(error="No connection")
    assert (await sent("https://nowhere.invalid/")).error in {"The name does not resolve", "No answer within 0.3 s"}
    with receiving(lambda _: CUT) as receiver:
        assert await sent(receiver.url) == Answer(error="The connection ended without an answer")
    with receiving(lambda _: 503) as receiver:
        assert await sent(receiver.url) == Answer(503, retry_after=1.0)
    await sender.close()


async def test_name_is_looked_up_once_and_shown_to_its_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connect to the address that was checked; the handshake, the certificate and `Host` have the name."""
    certificate = self_signed(tmp_path, "receiver", "hooks.example")
    names: list[str] = []
    looked_up: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    served = certificate.context()
    served.sni_callback = lambda _, name, __: names.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate.certificate))
    receiver = Receiver()
    with listening_in_thread(receiver.serve, served) as address:
        port = address.rpartition(":")[2]
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        targets = Targets([LOOPBACK])
        sender = Sender(targets, tls=trusting)
        answers = [
            await sender.send(f"https://{host}:{port}/", "evt_1", "{}", [mint_secret()])
            for host in ("hooks.example", "other.example")
        ]
        await sender.close()
    assert answers == [Answer(204, retry_after=1.0), Answer(error="Its certificate is not valid for this name")]
    assert names == looked_up == ["hooks.example", "other.example"]
    assert [message.headers["host"] for message in receiver.messages] == [f"hooks.example:{port}"]
