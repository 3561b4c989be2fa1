import { expect, test } from "vitest";
import type { RunSummary } from "../src/api/client";
import { isAfter, parseCursor } from "../src/live/cursor";
import type { FeedEvent } from "../src/live/messages";
import { applyEvents, freshRows, placesIn, type RunRows, replaceRows } from "../src/live/runs";
import { linesOf, placesOf } from "../src/pages/run/lines";

function run(id: string, status = "pending"): RunSummary {
  return { run_id: id, session_id: "ses_1", status, runner_id: null, attempt: 0, error: null } as RunSummary;
}

function page(runs: RunSummary[], position: number, next?: string): RunRows {
  return { runs, feed_cursor: `v1.abc.${position}`, ...(next ? { next_cursor: next } : {}) };
}

function updated(id: string, status: string, position: number, epoch = "abc"): FeedEvent {
  return { id: `v1.${epoch}.${position}`, type: "run_updated", data: { run: run(id, status) } };
}

test("cursors are compared within one history", () => {
  expect(parseCursor("v1.abc~init.41")).toEqual({ epoch: "abc", position: 41 });
  expect(parseCursor("nonsense")).toBeNull();
  expect(isAfter("v1.abc.42", "v1.abc.41")).toBe(true);
  expect(isAfter("v1.abc.41", "v1.abc.41")).toBe(false);
  expect(isAfter("v1.new.1", "v1.abc.41")).toBe(true);
});

test("a page takes only what happened after it, and the last of several changes", () => {
  const shown = page([run("run_2"), run("run_1", "running")], 10);
  const events = [updated("run_1", "claimed", 9), updated("run_2", "claimed", 11), updated("run_2", "running", 12)];
  expect(applyEvents(shown, events).runs.map((each) => each.status)).toEqual(["running", "running"]);
  expect(applyEvents(shown, [updated("run_1", "claimed", 9), updated("run_9", "failed", 13)])).toBe(shown);
});

test("each event changes a row once, whatever the order of snapshots and events", () => {
  const shown = applyEvents(page([run("run_2"), run("run_1")], 10), [updated("run_1", "running", 12)]);
  const statuses = (rows: RunRows) => rows.runs.map((each) => each.status);
  expect(applyEvents(shown, [updated("run_1", "claimed", 11), updated("run_1", "running", 12)])).toBe(shown);
  // A snapshot from before the event is older than the row, one from after it is not.
  expect(replaceRows(shown, page([run("run_1", "claimed")], 11))).toBe(shown);
  const replaced = replaceRows(shown, page([run("run_1", "completed")], 20));
  expect(statuses(replaced)).toEqual(["pending", "completed"]);
  expect(applyEvents(replaced, [updated("run_1", "stopping", 19)])).toBe(replaced);
  expect(statuses(applyEvents(replaced, [updated("run_2", "claimed", 19)]))).toEqual(["claimed", "completed"]);
});

test("rows keep their places, and errors are cut as in summaries", () => {
  const shown = page([run("run_2"), run("run_1")], 10);
  const failed = {
    ...updated("run_1", "failed", 11),
    data: { run: { ...run("run_1", "failed"), error: "x".repeat(999) } },
  };
  const changed = applyEvents(shown, [failed]);
  expect(changed.runs[1]?.error).toHaveLength(200);
  expect(placesIn(changed.runs)).toBe(placesIn(shown.runs));
  expect(shown.runs[1]?.error).toBeNull();
});

test("new rows are told from shown ones, and a gap is noticed", () => {
  const shown = [page([run("run_2")], 9), page([run("run_1")], 10)];
  expect(freshRows(shown, page([run("run_3"), run("run_2")], 20))).toEqual({ fresh: [run("run_3")], gap: false });
  expect(freshRows(shown, page([run("run_9"), run("run_8")], 20, "more")).gap).toBe(true);
  expect(freshRows([page([], 10)], page([run("run_9")], 20, "more")).gap).toBe(false);
});

test("rows are replaced in place", () => {
  const shown = page([run("run_2"), run("run_1")], 10);
  const newer = page([run("run_1", "completed"), run("run_7")], 11);
  expect(replaceRows(shown, newer).runs.map((each) => each.status)).toEqual(["pending", "completed"]);
  expect(replaceRows(shown, page([run("run_7")], 11))).toBe(shown);
});

test("events become lines, errors in their own tone", () => {
  const event = (fields: object) => ({ event_type: "message", timestamp: "t", ...fields }) as never;
  const lines = linesOf(
    [
      event({ content: [{ type: "text", text: "one\ntwo\n" }], role: "assistant" }),
      event({ error: "<b>no</b>" }),
      event({ tool_name: "sh", tool_input: { command: "ls" } }),
      event({ content: "\u001b[31mbad\nworse\u001b[0m\nfine", role: "system" }),
    ],
    7,
  );
  expect(lines.map((line) => line.key)).toEqual([7, 8, 9, 10, 11, 12, 13, 14, 15]);
  expect(lines.slice(6).map((line) => [line.plain, line.tone, line.text.startsWith("\u001b[31m")])).toEqual([
    ["bad", "stderr", true],
    ["worse", "stderr", true],
    ["fine", "stderr", false],
  ]);
  expect(placesOf(lines, "WORSE")).toEqual([7]);
  expect(lines.slice(0, 6).map((line) => [line.text, line.tone])).toEqual([
    ["one", "plain"],
    ["two", "plain"],
    ["<b>no</b>", "error"],
    ["sh {", "plain"],
    ['  "command": "ls"', "plain"],
    ["}", "plain"],
  ]);
});
