import { describe, expect, test } from "vitest";
import { describeTime, formatFull, formatTime } from "../src/format/times";
import { allZones, formatOffset, isZone, momentOf, offsetAt } from "../src/format/zones";

const HALF_HOUR = "Australia/Lord_Howe";

test("times are shown with the offset of their moment, also where clocks change by half an hour", () => {
  // Lord Howe goes from +11:00 back to +10:30 on 5 April 2026 at 02:00, and forward on 4 October at 02:00.
  expect(formatFull("2026-04-04T14:45:00Z", HALF_HOUR)).toBe("2026-04-05 01:45:00.000");
  expect(formatFull("2026-04-04T15:15:00Z", HALF_HOUR)).toBe("2026-04-05 01:45:00.000");
  expect(describeTime("2026-04-04T14:45:00Z", HALF_HOUR)).toBe("2026-04-05 01:45:00.000 +11:00 Australia/Lord_Howe");
  expect(describeTime("2026-04-04T15:15:00Z", HALF_HOUR)).toBe("2026-04-05 01:45:00.000 +10:30 Australia/Lord_Howe");
  expect(formatFull("2026-10-03T15:29:59.999Z", HALF_HOUR)).toBe("2026-10-04 01:59:59.999");
  expect(formatFull("2026-10-03T15:30:00Z", HALF_HOUR)).toBe("2026-10-04 02:30:00.000");
  expect(formatFull("2026-01-01T00:00:00Z", "Asia/Kathmandu")).toBe("2026-01-01 05:45:00.000");
  expect(formatFull("2026-07-01T12:00:00Z", "Europe/Berlin")).toBe("2026-07-01 14:00:00.000");
  expect(formatFull("nonsense", HALF_HOUR)).toBe("nonsense");
});

test("today is that of the zone", () => {
  const now = Date.parse("2026-03-05T23:30:00Z");
  expect(formatTime("2026-03-05T23:29:00Z", "UTC", now)).toBe("23:29:00");
  expect(formatTime("2026-03-05T12:00:00Z", "Pacific/Kiritimati", now)).toBe("02:00:00");
  expect(formatTime("2026-03-05T09:00:00Z", "Pacific/Kiritimati", now)).toBe("2026-03-05 23:00");
});

describe("times that are typed", () => {
  const shown = (text: string, zone: string) => new Date(momentOf(text, zone)).toISOString();

  test("are read in the zone", () => {
    expect(shown("2026-07-01T14:00", "Europe/Berlin")).toBe("2026-07-01T12:00:00.000Z");
    expect(shown("2026-01-01T05:45", "Asia/Kathmandu")).toBe("2026-01-01T00:00:00.000Z");
    expect(shown("2026-01-01T05:45", "UTC")).toBe("2026-01-01T05:45:00.000Z");
    expect(momentOf("soon", "UTC")).toBeNaN();
    expect(momentOf("soon", HALF_HOUR)).toBeNaN();
  });

  test("are the earlier of two such moments, and of a skipped time the one with the offset before", () => {
    expect(shown("2026-04-05T01:45", HALF_HOUR)).toBe("2026-04-04T14:45:00.000Z");
    expect(shown("2026-10-04T02:15", HALF_HOUR)).toBe("2026-10-03T15:45:00.000Z");
    expect(shown("2026-03-29T02:30", "Europe/Berlin")).toBe("2026-03-29T01:30:00.000Z");
    expect(shown("2026-10-25T02:30", "Europe/Berlin")).toBe("2026-10-25T00:30:00.000Z");
  });

  test.each([
    [HALF_HOUR, "2026-04-04T15:00Z"],
    [HALF_HOUR, "2026-10-03T15:30Z"],
    ["Europe/Berlin", "2026-03-29T01:00Z"],
    ["Europe/Berlin", "2026-10-25T01:00Z"],
    ["America/St_Johns", "2026-11-01T04:30Z"],
    ["Asia/Kathmandu", "2026-11-01T04:30Z"],
  ])("come back as they were typed, in %s around %s", (zone, change) => {
    const middle = Date.parse(change);
    for (let at = middle - 108_000_000; at < middle + 108_000_000; at += 1_800_000) {
      const typed = formatFull(new Date(at).toISOString(), zone).slice(0, 16).replace(" ", "T");
      const read = momentOf(typed, zone);
      expect([at, at - 3_600_000, at - 1_800_000]).toContain(read);
      expect(read + offsetAt(read, zone)).toBe(Date.parse(`${typed}Z`));
    }
  });
});

test("zones are those that the browser knows", () => {
  expect(allZones()[0]).toBe("UTC");
  expect(allZones()).toContain(HALF_HOUR);
  expect([HALF_HOUR, "UTC", "local", "Mars/Olympus", "+01:00", "", "<b>"].map(isZone)).toEqual([
    true,
    true,
    true,
    false,
    false,
    false,
    false,
  ]);
  expect([0, 37_800_000, -12_600_000].map(formatOffset)).toEqual(["+00:00", "+10:30", "-03:30"]);
});
