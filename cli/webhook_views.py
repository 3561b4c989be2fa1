"""Views of webhooks: tables for terminals, JSON for programs."""

from cli.tables import print_fields, print_table
from cli.views import age, show_json
from coordinator_client.webhook_types import (
    Webhook,
    WebhookCreated,
    WebhookDelivery,
    WebhookDeliveryPage,
    WebhookPage,
)
from runtime.terminal import complain, say


def show_webhooks(page: WebhookPage, *, as_json: bool) -> None:
    if as_json:
        show_json(page)
        return
    head = ("webhook", "url", "events", "of", "state")
    rows = [
        (hook["webhook_id"], hook["url"], " ".join(hook["events"]), _scope(hook), _state(hook))
        for hook in page["webhooks"]
    ]
    if rows:
        print_table(head, rows)
    else:
        say("no webhook")
    if "next_cursor" in page:
        complain(f"more: --cursor {page['next_cursor']}")


def show_webhook(hook: Webhook | WebhookCreated, *, as_json: bool) -> None:
    if as_json:
        show_json(hook)
        return
    fields = [
        ("webhook", hook["webhook_id"]),
        ("url", hook["url"]),
        ("events", " ".join(hook["events"])),
        ("of", _scope(hook)),
        ("agent", hook["agent_name"] or "any"),
        ("labels", " ".join(f"{key}={value}" for key, value in hook["labels"].items()) or "any"),
        ("state", _state(hook)),
        ("description", hook["description"] or "-"),
        ("created", f"{hook['created_at']} by {hook['created_by'] or 'an open coordinator'}"),
    ]
    print_fields(fields)


def show_put(hook: Webhook | WebhookCreated, *, as_json: bool) -> None:
    show_webhook(hook, as_json=as_json)
    secret = hook.get("secret")
    if as_json or secret is None:
        return
    say(secret)
    complain("this secret is shown once: the receiver verifies messages by it")


def show_done(hook: Webhook, done: str, *, as_json: bool) -> None:
    if as_json:
        show_json(hook)
    else:
        say(f"{hook['webhook_id']} is {done}")


def show_sent(delivery: WebhookDelivery, *, as_json: bool) -> None:
    if as_json:
        show_json(delivery)
    else:
        say(f"{delivery['event_id']} is {delivery['state']}")


def show_deliveries(page: WebhookDeliveryPage, *, as_json: bool) -> None:
    if as_json:
        show_json(page)
        return
    rows = [
        (
            each["event_id"],
            each["event_type"],
            each["run_id"] or each["session_id"] or "-",
            each["state"],
            each["attempts"],
            each["response_status"] or each["error"] or "-",
            each["next_at"] or "-",
            age(each["created_at"]),
        )
        for each in page["deliveries"]
    ]
    if rows:
        print_table(("event", "type", "about", "state", "attempts", "answer", "next", "age"), rows)
    else:
        say("no message")
    if "next_cursor" in page:
        complain(f"more: --cursor {page['next_cursor']}")


def _scope(hook: Webhook | WebhookCreated) -> str:
    return "all owners" if hook["owner"] is None else hook["owner"]


def _state(hook: Webhook | WebhookCreated) -> str:
    return f"disabled: {hook['disabled_reason'] or 'by hand'}" if hook["disabled"] else "in use"
