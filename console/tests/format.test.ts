import { describe, expect, test } from "vitest";
import { lastWritten, spansOf } from "../src/format/ansi";
import { ExactNumber, formatExact, parseExact } from "../src/format/exact";
import { destinationOf } from "../src/format/search";
import { formatDuration, formatTime } from "../src/format/times";

describe("numbers that JavaScript would round", () => {
  // Node 20 does not tell how a number was written; browsers do.
  const tellsSource = JSON.parse(
    "1",
    ((_: string, __: unknown, context?: { source?: string }) => context?.source) as never,
  );

  test("are shown as they were written", () => {
    const value = { big: new ExactNumber("12345678901234567890"), "": [1.5, null, {}], none: [] };
    expect(formatExact(value)).toBe(
      '{\n  "big": 12345678901234567890,\n  "": [\n    1.5,\n    null,\n    {}\n  ],\n  "none": []\n}',
    );
    if (tellsSource) {
      expect(parseExact("[12345678901234567890, 1.50, 2e3, 0.1]")).toEqual([
        new ExactNumber("12345678901234567890"),
        1.5,
        2000,
        0.1,
      ]);
    }
  });
});

test("colours become classes and sequences of the cursor vanish", () => {
  expect(spansOf("plain <b>")).toEqual([{ text: "plain <b>", classes: [] }]);
  const spans = spansOf("\u001b[2K\u001b[1;31mbad\u001b[0m \u001b]0;title\u0007ok");
  expect(spans.map((span) => span.text).join("")).toBe("bad ok");
  expect(spans[0]?.classes).toEqual(["ansi-red", "ansi-bold"]);
  expect(lastWritten("10 %\r20 %\r")).toBe("20 %");
});

test("durations have their two largest units", () => {
  expect([0.25, 4.23, 59, 185, 7800, 273_600].map(formatDuration)).toEqual([
    "250 ms",
    "4.2 s",
    "59 s",
    "3 m 05 s",
    "2 h 10 m",
    "3 d 4 h",
  ]);
});

test("times of another day have their date", () => {
  const now = Date.parse("2026-03-05T12:00:00Z");
  expect(formatTime("2026-03-05T09:08:07.5Z", "UTC", now)).toBe("09:08:07");
  expect(formatTime("2026-03-04T23:59:59Z", "UTC", now)).toBe("2026-03-04 23:59");
});

test("the search box leads to ids and to filtered lists", () => {
  expect(destinationOf("run_0197")).toEqual({ kind: "run", id: "run_0197" });
  expect(destinationOf("lnch_1")).toEqual({ kind: "runner", id: "lnch_1" });
  expect(destinationOf("tour-1")).toEqual({ kind: "session", id: "tour-1" });
  expect(destinationOf("failed")).toEqual({ kind: "runs", filters: { status: ["failed"] } });
  expect(destinationOf('status:failed,stopped agent:"my agent" label:team=web')).toEqual({
    kind: "runs",
    filters: { status: ["failed", "stopped"], agent: "my agent", label: ["team=web"] },
  });
  expect(destinationOf("  ")).toBeNull();
});
