/** `local`, `UTC`, or a name of the time zone database that browsers have, like `Europe/Berlin`. */
export type Zone = string;

const QUARTER = 900_000;
const DAY = 86_400_000;
const MOST_KEPT = 5000;

const formats = new Map<Zone, Intl.DateTimeFormat>();
const offsets = new Map<string, number>();

/** Return all zones of this browser by name, UTC first. */
export function allZones(): string[] {
  return ["UTC", ...Intl.supportedValuesOf("timeZone").filter((name) => name !== "UTC")];
}

export function isZone(text: string): boolean {
  if (text === "local" || text === "UTC") {
    return true;
  }
  try {
    // An offset such as +01:00 would be accepted too; it is no zone with rules.
    return /^[A-Za-z]/.test(text) && new Intl.DateTimeFormat("en", { timeZone: text }) !== null;
  } catch {
    return false;
  }
}

/** Return the name of a zone; of `local` the name that the system has for it. */
export function nameOf(zone: Zone): string {
  return zone === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone : zone;
}

/** Return by how many milliseconds clocks of the zone are ahead of UTC at a moment. */
export function offsetAt(at: number, zone: Zone): number {
  if (zone === "UTC") {
    return 0;
  }
  if (zone === "local") {
    return -new Date(at).getTimezoneOffset() * 60_000;
  }
  // No zone changes its clocks within a quarter of an hour.
  const quarter = Math.floor(at / QUARTER);
  const key = `${quarter} ${zone}`;
  const kept = offsets.get(key);
  if (kept !== undefined) {
    return kept;
  }
  if (offsets.size >= MOST_KEPT) {
    offsets.clear();
  }
  const offset = wallClock(quarter * QUARTER, zone) - quarter * QUARTER;
  offsets.set(key, offset);
  return offset;
}

/** Return an offset as it is written behind a time: `+10:30`. */
export function formatOffset(offset: number): string {
  const minutes = Math.round(Math.abs(offset) / 60_000);
  const [hours, rest] = [Math.floor(minutes / 60), minutes % 60].map((value) => String(value).padStart(2, "0"));
  return `${offset < 0 ? "-" : "+"}${hours}:${rest}`;
}

/**
 * Return the moment at which clocks of the zone show `YYYY-MM-DDTHH:MM`, in milliseconds; NaN for any other text. Of two
 * such moments the earlier one; a time that clocks skip is read with the offset from before.
 */
export function momentOf(text: string, zone: Zone): number {
  const wall = Date.parse(`${text}Z`);
  if (Number.isNaN(wall)) {
    return Number.NaN;
  }
  const before = wall - offsetAt(wall - DAY, zone);
  const after = wall - offsetAt(wall + DAY, zone);
  const found = [before, after].filter((at) => at + offsetAt(at, zone) === wall);
  return found.length ? Math.min(...found) : before;
}

/** Return what clocks of the zone show, as if it were a time in UTC. */
function wallClock(at: number, zone: Zone): number {
  let format = formats.get(zone);
  if (!format) {
    const numbers = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric" } as const;
    format = new Intl.DateTimeFormat("en-US", {
      ...numbers,
      second: "numeric",
      hourCycle: "h23",
      calendar: "iso8601",
      numberingSystem: "latn",
      timeZone: zone,
    });
    formats.set(zone, format);
  }
  const parts = new Map(format.formatToParts(at).map((part) => [part.type, Number(part.value)] as const));
  const [year, month, day, hour, minute, second] = ["year", "month", "day", "hour", "minute", "second"].map(
    (name) => parts.get(name as Intl.DateTimeFormatPartTypes) ?? 0,
  ) as [number, number, number, number, number, number];
  return Date.UTC(year, month - 1, day, hour, minute, second);
}
