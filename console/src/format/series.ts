import type { components } from "../api/schema";

type Series = components["schemas"]["Series"];

export type Values = (number | null)[];

/** Return the begin of each period of the window, in Unix seconds. */
export function periodsOf({ since, until, step }: Pick<Series, "since" | "until" | "step">): number[] {
  const first = Math.floor(Date.parse(since) / 1000 / step) * step;
  const last = Date.parse(until) / 1000;
  return Array.from({ length: Math.max(0, Math.ceil((last - first) / step)) }, (_, place) => first + place * step);
}

/** Return the value of a curve in each period: `place` among the values of a point, `missing` where it has none. */
export function valuesAt(
  points: Series["series"][number]["points"],
  periods: number[],
  place: number,
  missing: number | null,
): Values {
  const known = new Map(points.map((point) => [point[0], point[place + 1] ?? null]));
  return periods.map((period) => known.get(period) ?? missing);
}

export function sumOf(values: Values): number {
  return values.reduce<number>((sum, value) => sum + (value ?? 0), 0);
}

export function lastOf(values: Values): number | null {
  return values.findLast((value) => value !== null) ?? null;
}
