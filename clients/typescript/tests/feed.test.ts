import assert from "node:assert/strict";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import { HistoryLost, linesOf, Refused, type SessionEvent, Unreachable } from "coordinator-client";
import { client, closedAddress, collect, pass, prompt, serve } from "./support.js";

/** Return the events as clients sent them: the last ones may have come before their position. */
function contents(events: SessionEvent[]): unknown[] {
  return events.map(({ feed_cursor: _, ...event }) => event);
}

test("follow gives each event of a run once, over ends of its stream, up to its end", async () => {
  const coordinator = client();
  const { run_id, session_id } = await coordinator.submit(prompt("sleep 3"));
  const [events, ofSession] = await Promise.all([
    collect(coordinator.follow(run_id)),
    collect(coordinator.follow({ sessionId: session_id })),
  ]);
  const stored = (await coordinator.sessionEvents(session_id, { limit: 1000 })).map(({ id: _, ...event }) => event);
  assert.deepEqual(contents(events), contents(stored));
  assert.deepEqual(contents(ofSession), contents(stored));
  const middle = stored.at(2)?.feed_cursor ?? "";
  const rest = await collect(coordinator.follow(run_id, { after: middle }));
  assert.deepEqual(contents(rest), contents(stored.slice(3)));
  const lines = await collect(linesOf(events));
  assert.ok(lines.some(([role, line]) => role === "assistant" && line === "thinking it over"));
});

test("follow of an unknown run, session or position throws", async () => {
  const coordinator = client();
  const { run_id } = await coordinator.submit(prompt("hello"));
  for (const unknown of ["run_none", { sessionId: "none" }]) {
    await assert.rejects(coordinator.follow(unknown).next(), (error: Refused) => error.status === 404);
  }
  await assert.rejects(coordinator.follow(run_id, { after: "v1.elsewhere.7" }).next(), HistoryLost);
});

test("a position of another database gives a reset and a snapshot, from which reading goes on", async () => {
  const coordinator = client();
  const { session_id } = await coordinator.submit(prompt("hello"));
  const items = coordinator.feed({ after: "v1.elsewhere.7", types: ["session_deleted"] });
  const [reset, init] = [(await items.next()).value, (await items.next()).value];
  assert.deepEqual([reset?.event, reset?.data, init?.event], ["reset", { reason: "epoch" }, "init"]);
  assert.ok(init?.event === "init" && init.data.sessions.some((session) => session.session_id === session_id));
  await items.return();
  const again = coordinator.feed({ after: reset?.id, types: ["session_deleted"] });
  assert.equal((await again.next()).value?.event, "init");
  await again.return();
});

test("errors that will not pass, and too long a time without a stream, are thrown", async () => {
  const items = client().feed({ types: ["nonsense" as "event"] });
  await assert.rejects(items.next(), (error: Refused) => error instanceof Refused && error.status === 422);
  const closed = [await closedAddress(), await closedAddress()];
  await assert.rejects(client(closed).feed({ patienceSeconds: 0.3 }).next(), (error: Unreachable) => {
    assert.ok(error instanceof Unreachable);
    return Object.keys(error.causes).sort().join() === closed.sort().join();
  });
  assert.throws(() => client().feed({ after: "\n" }), TypeError);
});

test("leaving the loop, and the signal, close the connection", async (context) => {
  let closed: Promise<unknown> = Promise.resolve();
  const url = await serve(context, (incoming, outgoing) => {
    closed = once(outgoing, "close");
    pass(incoming, outgoing);
  });
  for await (const item of client(url).feed({ init: true })) {
    assert.equal(item.event, "init");
    break;
  }
  await closed;
  const controller = new AbortController();
  const items = client(url).feed({ init: true, signal: controller.signal });
  await items.next();
  controller.abort();
  await assert.rejects(items.next(), { name: "AbortError" });
  await closed;
});

test("a connection that is silent is replaced, and what it had not finished comes again", async (context) => {
  const sent: (string | undefined)[] = [];
  const frame = (id: number, text: string): string =>
    `id: v1.e.${id}\nevent: session_deleted\ndata: {"session_id":"${text}"}\n\n`;
  let open: ServerResponse | undefined;
  const url = await serve(context, (incoming, outgoing) => {
    sent.push(incoming.headers["last-event-id"] as string | undefined);
    outgoing.writeHead(200, { "Content-Type": "text/event-stream" });
    open = outgoing;
    // The second frame stops within a character.
    const bytes = Buffer.from(`retry: 1\nid: v1.e.1\n\n${frame(2, "a")}${frame(3, "ü")}`);
    outgoing.write(sent.length === 1 ? bytes.subarray(0, bytes.indexOf(0xbc)) : frame(3, "ü") + frame(4, "b"));
  });
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const causes: (string | null)[] = [];
  const items = client(url).feed({ after: "v1.e.0", onConnection: (_, cause) => causes.push(cause) });
  const ids = [(await items.next()).value?.id];
  const next = items.next();
  // A second every 5 ms: the silence, and the pause behind it.
  const ticking = setInterval(() => context.mock.timers.tick(1000), 5);
  ids.push((await next).value?.id);
  clearInterval(ticking);
  ids.push((await items.next()).value?.id);
  await items.return();
  assert.deepEqual(ids, ["v1.e.2", "v1.e.3", "v1.e.4"]);
  assert.deepEqual(sent, ["v1.e.0", "v1.e.2"]);
  assert.deepEqual(causes, [null, "no answer in time", null]);
  open?.destroy();
});

test("parts of lines are joined, and lines that are drawn again replaced", async () => {
  const message = (role: string, text: string, partial = false) => ({
    event_type: "message",
    role,
    content: [{ type: "text", text, partial }],
  });
  const events = [
    message("assistant", "10 %", true),
    message("system", "warning"),
    { event_type: "result", role: null, content: null },
    message("assistant", "\r20 %", true),
    message("assistant", " done"),
    message("assistant", "rest", true),
  ];
  assert.deepEqual(await collect(linesOf(events)), [
    ["system", "warning"],
    ["assistant", "20 % done"],
    ["assistant", "rest"],
  ]);
});
