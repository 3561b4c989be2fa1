import { queryOptions } from "@tanstack/react-query";
import { accepted, api } from "./client";
import type { paths } from "./schema";

export type Metric = paths["/stats/series"]["get"]["parameters"]["query"]["metric"];

// Some changes are no events: time passes, heartbeats stop, and the history is counted after the feed.
const SLOWEST = { staleTime: 0, refetchInterval: 10_000 } as const;

export const queueList = queryOptions({
  queryKey: ["overview", "queues"],
  queryFn: async ({ signal }) => accepted(await api.GET("/queues", { signal })),
  ...SLOWEST,
});

export const runCounts = queryOptions({
  queryKey: ["overview", "counts"],
  queryFn: async ({ signal }) => accepted(await api.GET("/runs/counts", { signal })),
  ...SLOWEST,
});

export const systemState = queryOptions({
  queryKey: ["overview", "system"],
  queryFn: async ({ signal }) => accepted(await api.GET("/system", { signal })),
  ...SLOWEST,
});

export interface Window {
  name: string;
  seconds: number;
  step: 60 | 300;
}

export const WINDOWS: readonly [Window, Window] = [
  { name: "Last hour", seconds: 3600, step: 60 },
  { name: "Last 24 hours", seconds: 86_400, step: 300 },
];

/** Read the curves of a metric up to now; ends by their status. */
export function curvesOf(metric: Metric, { seconds, step }: Window) {
  return queryOptions({
    queryKey: ["overview", "series", metric, seconds],
    queryFn: async ({ signal }) => {
      const since = new Date(Date.now() - seconds * 1000).toISOString();
      const by = metric === "ended" ? ({ by: "status" } as const) : {};
      const query = { metric, step: String(step) as "60" | "300", since, ...by };
      return accepted(await api.GET("/stats/series", { params: { query }, signal }));
    },
    ...SLOWEST,
  });
}
