import { expect, test, vi } from "vitest";
import { lastOf, periodsOf, sumOf, valuesAt } from "../src/format/series";
import { Pace } from "../src/live/pace";

test("curves have a value in each period of the window, the last one included", () => {
  const periods = periodsOf({ since: "2026-11-30T10:00:30Z", until: "2026-11-30T10:03:10Z", step: 60 });
  const first = Date.parse("2026-11-30T10:00:00Z") / 1000;
  expect(periods).toEqual([first, first + 60, first + 120, first + 180]);
  const counts = valuesAt([[first + 60, 7]], periods, 0, 0);
  expect(counts).toEqual([0, 7, 0, 0]);
  expect(sumOf(counts)).toBe(7);
  const waits = valuesAt([[first + 60, 0.5, 2, 3, 9]], periods, 1, null);
  expect(waits).toEqual([null, 2, null, null]);
  expect(lastOf(waits)).toBe(2);
  expect(lastOf([null])).toBeNull();
});

test("many changes are one reading in each interval, none while paused, and one after it", () => {
  vi.useFakeTimers();
  let readings = 0;
  const pace = new Pace(() => {
    readings += 1;
  }, 2000);
  for (let change = 0; change < 100; change++) {
    pace.ask();
    vi.advanceTimersByTime(50);
  }
  expect(readings).toBe(3);
  pace.pause(true);
  pace.ask();
  vi.advanceTimersByTime(60_000);
  expect(readings).toBe(3);
  pace.pause(false);
  vi.advanceTimersByTime(0);
  expect(readings).toBe(4);
  vi.useRealTimers();
});
