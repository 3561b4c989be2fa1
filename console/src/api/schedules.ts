import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { accepted, api, readExact, sendText } from "./client";
import { queryClient } from "./queries";
import type { components } from "./schema";

export type ScheduleSummary = components["schemas"]["ScheduleSummary"];
export type Schedule = components["schemas"]["Schedule"];
export type Fire = components["schemas"]["Fire"];

// The feed does not tell about schedules.
const LOOK_MILLISECONDS = 5000;

export function scheduleList() {
  return infiniteQueryOptions({
    queryKey: ["schedules", "list"],
    queryFn: async ({ pageParam, signal }) => {
      const query = { cursor: pageParam ?? undefined, limit: 100 };
      return accepted(await api.GET("/schedules", { params: { query }, signal }));
    },
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor ?? null,
    refetchInterval: LOOK_MILLISECONDS,
    staleTime: 0,
  });
}

export function oneSchedule(id: string) {
  return queryOptions({
    queryKey: ["schedules", "one", id],
    queryFn: ({ signal }) => readExact<Schedule>(pathOf(id), signal),
    refetchInterval: LOOK_MILLISECONDS,
    staleTime: 0,
  });
}

export function fireList(id: string) {
  return infiniteQueryOptions({
    queryKey: ["schedules", "fires", id],
    queryFn: async ({ pageParam, signal }) => {
      const params = { path: { schedule_id: id }, query: { cursor: pageParam ?? undefined } };
      return accepted(await api.GET("/schedules/{schedule_id}/fires", { params, signal }));
    },
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor ?? null,
    refetchInterval: LOOK_MILLISECONDS,
    staleTime: 0,
  });
}

export function nextTimes(id: string) {
  return queryOptions({
    queryKey: ["schedules", "next", id],
    queryFn: async ({ signal }) => {
      const params = { path: { schedule_id: id }, query: { count: 10 } };
      return accepted(await api.GET("/schedules/{schedule_id}/next", { params, signal }));
    },
    refetchInterval: LOOK_MILLISECONDS,
    staleTime: 0,
  });
}

export async function pauseSchedule(id: string, note: string): Promise<void> {
  await sendText("POST", `${pathOf(id)}/pause`, JSON.stringify(note ? { note } : {}));
  await lookAgain();
}

export async function resumeSchedule(id: string): Promise<void> {
  await sendText("POST", `${pathOf(id)}/resume`, "{}");
  await lookAgain();
}

/** Make a fire now; `key` makes a repeat of the same press harmless. */
export async function triggerSchedule(id: string, overlap: string | null, key: string): Promise<Fire> {
  const fire = await sendText<Fire>("POST", `${pathOf(id)}/trigger`, JSON.stringify({ overlap }), {
    "Idempotency-Key": key,
  });
  await lookAgain();
  return fire;
}

async function lookAgain(): Promise<void> {
  await queryClient.invalidateQueries({ queryKey: ["schedules"] });
}

function pathOf(id: string): string {
  return `schedules/${encodeURIComponent(id)}`;
}
