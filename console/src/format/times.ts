import { formatOffset, nameOf, offsetAt, type Zone } from "./zones";

export type { Zone } from "./zones";

/** Return a duration in its two largest units: `4.2 s`, `3 m 05 s`, `2 h 10 m`, `3 d 4 h`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, seconds);
  if (whole < 1) {
    return `${Math.round(whole * 1000)} ms`;
  }
  if (whole < 60) {
    return `${whole < 10 ? whole.toFixed(1) : Math.floor(whole)} s`;
  }
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) {
    return `${minutes} m ${pad(Math.floor(whole % 60))} s`;
  }
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${pad(minutes % 60)} m` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function secondsBetween(start: string, end: string | number): number {
  return ((typeof end === "number" ? end : Date.parse(end)) - Date.parse(start)) / 1000;
}

/** Return a time in the zone, to the second: with the date when it is not of today. */
export function formatTime(text: string, zone: Zone, now = Date.now()): string {
  const full = formatFull(text, zone);
  const today = formatFull(new Date(now).toISOString(), zone).slice(0, 10);
  return full.startsWith(today) ? full.slice(11, 19) : full.slice(0, 16);
}

/** Return date and time in the zone, to the millisecond. */
export function formatFull(text: string, zone: Zone): string {
  const at = Date.parse(text);
  if (Number.isNaN(at)) {
    return text;
  }
  return new Date(at + offsetAt(at, zone)).toISOString().replace("T", " ").replace("Z", "");
}

/** Return date and time with the offset and the name of the zone: the same clock time comes twice in autumn. */
export function describeTime(text: string, zone: Zone): string {
  const at = Date.parse(text);
  return Number.isNaN(at) ? text : `${formatFull(text, zone)} ${formatOffset(offsetAt(at, zone))} ${nameOf(zone)}`;
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}
