import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type CallFailed,
  CoordinatorClient,
  Refused,
  RunFailed,
  RunStopped,
  Unreachable,
  WaitTimeout,
} from "coordinator-client";
import { ADDRESS, client, closedAddress, collect, pass, prompt, serve } from "./support.js";

test("a run is submitted, and waited for until its result is there", async () => {
  const coordinator = client();
  const submitted = await coordinator.submit(
    prompt("count the stars", { not_before: new Date(), labels: { of: "calls" } }),
  );
  const done = await coordinator.wait(submitted.run_id);
  assert.equal(done.text, "You said: count the stars");
  assert.equal((done.data as { words: number }).words, 3);
  assert.deepEqual([done.run.status, done.run.session_id], ["completed", submitted.session_id]);
  assert.deepEqual(
    (await coordinator.runs({ label: ["of=calls"] })).runs.map((run) => run.run_id),
    [submitted.run_id],
  );
  assert.equal((await coordinator.session(submitted.session_id)).status, "finished");
  assert.ok(
    (await coordinator.sessions({ limit: 1000 })).sessions.some((each) => each.session_id === submitted.session_id),
  );
  const { data } = await coordinator.api.GET("/runs/{run_id}/timeline", {
    params: { path: { run_id: done.run.run_id } },
  });
  assert.equal(data?.attempts.length, 1);
});

test("a wait ends with the reason when the run fails, is stopped or takes too long", async () => {
  const coordinator = client();
  const failing = await coordinator.submit(prompt("fail out of paper"));
  await assert.rejects(coordinator.wait(failing.run_id), (error: RunFailed) => {
    assert.ok(error instanceof RunFailed);
    assert.match(error.error, /out of paper|exit/i);
    return error.run.run_id === failing.run_id;
  });
  const sleeping = await coordinator.submit(prompt("sleep 60"));
  await assert.rejects(coordinator.wait(sleeping.run_id, { seconds: 0.1 }), WaitTimeout);
  const away = client(await closedAddress());
  await assert.rejects(away.wait(sleeping.run_id, { seconds: 0.1 }), WaitTimeout);
  assert.match((await coordinator.stop(sleeping.run_id)).status, /stop/);
  await assert.rejects(coordinator.wait(sleeping.run_id), RunStopped);
});

test("a submission whose answers are lost is repeated and makes one run", async (context) => {
  let lost = 0;
  const url = await serve(context, (incoming, outgoing) => pass(incoming, outgoing, lost++ < 2));
  const coordinator = client(url);
  const labels = { of: "repeats" };
  const one = await coordinator.submit(prompt("once", { labels }));
  lost = 0;
  const [two, bad] = await coordinator.submitBatch([prompt("twice", { labels }), { parameters: {}, labels }]);
  assert.equal(lost, 3, "two answers of the batch were lost");
  assert.equal(two?.code, 200, "the answer to a repeat");
  assert.match(String(bad?.code), /^4/);
  const { runs } = await coordinator.runs({ label: ["of=repeats"] });
  assert.equal(runs.length, 2);
  assert.ok(runs.some((run) => run.run_id === one.run_id));
});

test("the same idempotency key makes one run, and refuses another body", async () => {
  const coordinator = client();
  const options = { idempotencyKey: "typescript-1" };
  const first = await coordinator.submit(prompt("only once"), options);
  assert.deepEqual(await coordinator.submit(prompt("only once"), options), first);
  await assert.rejects(coordinator.submit(prompt("another"), options), (error: Refused) => error.status === 409);
  await assert.rejects(coordinator.submitBatch([prompt("x")], { idempotencyKeys: [] }), TypeError);
});

test("an error answer has the problem of the coordinator", async () => {
  const coordinator = client();
  await assert.rejects(coordinator.run("run_none"), (error: Refused) => {
    assert.ok(error instanceof Refused);
    assert.deepEqual([error.status, error.problem, error.isTransient], [404, { detail: "Run not found" }, false]);
    assert.match(error.message, new RegExp(`^404: Run not found \\(request ${error.requestId}\\)$`));
    return true;
  });
  await assert.rejects(coordinator.submit(prompt("x", { priority: 101 })), (error: Refused) => {
    const [fault] = error.detail as { loc: unknown[]; msg: string }[];
    assert.deepEqual([error.status, fault?.loc], [422, ["body", "priority"]]);
    return error.message.includes("body.priority: ");
  });
  for (const odd of ["..", "", "a/b?c#d", "\u0000"]) {
    await assert.rejects(
      client(ADDRESS, 0).session(odd),
      (error: CallFailed) => error instanceof Refused || error instanceof Unreachable,
    );
  }
});

test("a call goes on at the next address, and an answer of something in between is none", async (context) => {
  const page = "<html><style>p {}</style><p>Please sign in</p></html>";
  const answers: Record<string, (write: (status: number, headers: Record<string, string>) => void) => void> = {
    page: (write) => write(200, { "Content-Type": "text/html" }),
    redirect: (write) => write(302, { Location: `${ADDRESS}/health` }),
    "not found": (write) => write(404, {}),
    "too large": (write) => write(413, {}),
    "bad gateway": (write) => write(502, { "Retry-After": "7" }),
  };
  for (const [name, answer] of Object.entries(answers)) {
    const url = await serve(context, (_, outgoing) => {
      answer((status, headers) => outgoing.writeHead(status, headers));
      outgoing.end(page);
    });
    await assert.rejects(client(url, 0).sessions(), (error: Unreachable) => {
      assert.ok(error instanceof Unreachable, `${name}: ${error}`);
      assert.match(error.causes[url] ?? "", /^HTTP \d+, not a coordinator's answer: Please sign in$/);
      const facts = [error.isTransient, error.isTooLarge, error.retryAfter];
      assert.deepEqual(facts, [name !== "too large", name === "too large", name === "bad gateway" ? 7 : null]);
      return error.requestId !== null;
    });
    assert.ok((await client([url, ADDRESS], 0).sessions()).feed_cursor);
  }
  const closed = await closedAddress();
  assert.ok((await client([closed, ADDRESS], 0).sessions()).feed_cursor);
  await assert.rejects(client(closed, 0).sessions(), (error: Unreachable) => {
    assert.match(error.causes[closed] ?? "", /ECONNREFUSED/);
    return error.requestId === null && error.isTransient;
  });
  assert.throws(() => new CoordinatorClient({ url: "127.0.0.1:8765" }), TypeError);
  assert.throws(() => new CoordinatorClient({ url: [] }), TypeError);
});

test("each call ends when its signal is aborted", async () => {
  const coordinator = client();
  const { run_id } = await coordinator.submit(prompt("sleep 60"));
  const away = client(await closedAddress(), 600);
  const calls: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
    run: (signal) => coordinator.run(run_id, { waitSeconds: 60, signal }),
    wait: (signal) => coordinator.wait(run_id, { signal }),
    "wait with an end": (signal) => coordinator.wait(run_id, { seconds: 60, signal }),
    "pause between tries": (signal) => away.submit(prompt("x"), { signal }),
    "wait without a coordinator": (signal) => away.wait(run_id, { signal }),
    follow: (signal) => collect(coordinator.follow(run_id, { signal })),
    feed: (signal) => collect(coordinator.feed({ signal })),
    "feed without a coordinator": (signal) => collect(away.feed({ signal })),
    "any other call": (signal) =>
      coordinator.api.GET("/runs/{run_id}", { params: { path: { run_id }, query: { wait: 60 } }, signal }),
  };
  for (const [name, call] of Object.entries(calls)) {
    const reason = new Error(name);
    const controller = new AbortController();
    const ended = assert.rejects(call(controller.signal), (error) => error === reason, name);
    setTimeout(() => controller.abort(reason), 50);
    await ended;
    await assert.rejects(call(AbortSignal.abort(reason)), (error) => error === reason, `${name}, aborted before`);
  }
  await coordinator.stop(run_id);
});
