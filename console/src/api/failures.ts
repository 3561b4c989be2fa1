import { queryOptions } from "@tanstack/react-query";
import { accepted, api } from "./client";
import type { components } from "./schema";

export type FailureGroup = components["schemas"]["FailureGroup"];

export const failureGroups = queryOptions({
  queryKey: ["runs", "failures"],
  queryFn: async ({ signal }) => accepted(await api.GET("/runs/failures", { signal })),
  refetchInterval: 10_000,
});

/** Return a part of the error by which a list shows the runs of a group, and perhaps others; null if none is long. */
export function partOf({ text }: FailureGroup): string | null {
  const parts = text.split(/<\w+>|\n/).map((part) => part.trim());
  const longest = parts.reduce((best, part) => (part.length > best.length ? part : best), "");
  return longest.length < 4 ? null : longest.slice(0, 256);
}
