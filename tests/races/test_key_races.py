"""Race creation, revocation and use of keys and tickets: no change is missed, and no ticket is used twice."""

import threading

from models.auth.keys import (
    Key,
    NewKey,
    create_keys,
    find_keys,
    hash_secret,
    key_revision,
    mint_token,
    revoke_keys,
    touch_keys,
)
from models.auth.tickets import NewTicket, Ticket, issue_tickets, redeem_tickets
from models.core.callers import Caller, Role
from models.core.errors import NotFound
from tests.support.callers import OPERATOR
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs

MANY = 16


def new_key() -> NewKey:
    _, (key_id, secret_hash) = mint_token()
    return NewKey(key_id, secret_hash, Role.USER, "ann")


def test_every_concurrent_change_is_counted(db: DbVerbs) -> None:
    keys = [new_key() for _ in range(MANY)]
    run_in_threads(MANY, lambda place: db.do(create_keys, [keys[place]], OPERATOR))
    assert db.do(key_revision) == MANY
    run_in_threads(MANY, lambda place: db.do(revoke_keys, [keys[place].key_id], OPERATOR))
    assert db.do(key_revision) == 2 * MANY
    run_in_threads(MANY, lambda place: db.do(revoke_keys, [keys[place].key_id], OPERATOR))
    assert db.do(key_revision) == 2 * MANY


def test_reader_of_a_change_number_sees_every_change_it_counts(db: DbVerbs) -> None:
    """Otherwise a process would count a change as read and never look at that key again."""
    keys = [new_key() for _ in range(MANY)]
    db.do(create_keys, keys, OPERATOR)
    before = db.do(key_revision)
    over = threading.Event()
    missed: list[tuple[int, int]] = []

    def look() -> None:
        while not over.is_set():
            changes = db.do(key_revision) - before
            found = db.do(find_keys, [key.key_id for key in keys])
            revoked = sum(isinstance(key, Key) and key.revoked_at is not None for key in found)
            if revoked < changes:
                missed.append((changes, revoked))

    watcher = threading.Thread(target=look)
    watcher.start()
    run_in_threads(MANY, lambda place: db.do(revoke_keys, [keys[place].key_id], OPERATOR))
    over.set()
    watcher.join()
    assert missed == []


def test_last_use_is_recorded_while_key_is_revoked(db: DbVerbs) -> None:
    """Neither waits long for the other, and the key stays revoked."""
    key = new_key()
    db.do(create_keys, [key], OPERATOR)

    def contend(place: int) -> object:
        if place % 2:
            return db.do(touch_keys, [key.key_id])
        return db.do(revoke_keys, [key.key_id], OPERATOR)

    run_in_threads(MANY, contend)
    (found,) = db.do(find_keys, [key.key_id])
    assert isinstance(found, Key)
    assert found.revoked_at is not None


def test_ticket_admits_one_of_all_concurrent_uses(db: DbVerbs) -> None:
    """Include two uses in one batch."""
    ticket_hash = hash_secret("tkt_x")
    db.do(issue_tickets, [NewTicket(ticket_hash, Caller(Role.USER, "ann"), "{}", 60)])
    results = [
        one for two in run_in_threads(MANY, lambda _: db.do(redeem_tickets, [ticket_hash, ticket_hash])) for one in two
    ]
    assert sum(isinstance(one, Ticket) for one in results) == 1
    assert sum(isinstance(one, NotFound) for one in results) == 2 * MANY - 1
