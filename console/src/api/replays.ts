import { queryOptions } from "@tanstack/react-query";
import { ApiError, accepted, api, type Run, type RunSummaryPage, readText, sendText } from "./client";

export interface Submitted {
  run_id: string;
  session_id: string;
}

/** Submit a run again in a new session, with changes as the text of a JSON object; a repeat with the key is the same run. */
export function replay(run: string, changes: string, key: string): Promise<Submitted> {
  const path = `runs/${encodeURIComponent(run)}/replay`;
  return sendText<Submitted>("POST", path, `{"changes":${changes}}`, { "Idempotency-Key": key });
}

/** Return a new key for one intention. Plain HTTP has no crypto.randomUUID. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Read a run as the text of the answer: no number of it is rounded, in any browser. */
export function runText(id: string) {
  return queryOptions({
    queryKey: ["run", id, "text"],
    queryFn: ({ signal }) => readText(`runs/${encodeURIComponent(id)}`, { signal }),
  });
}

/** Read the result of a run as text; null when none is kept. */
export function resultText(id: string) {
  return queryOptions({
    queryKey: ["run", id, "result", "text"],
    queryFn: async ({ signal }): Promise<string | null> => {
      try {
        return await readText(`runs/${encodeURIComponent(id)}/result`, { signal });
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) {
          return null;
        }
        throw error;
      }
    },
  });
}

/** Read the newest replays of a run. They are read again whenever the page is opened: one may have come since. */
export function replaysOf(id: string) {
  return queryOptions({
    queryKey: ["run", id, "replays"],
    queryFn: async ({ signal }) => {
      const query = { replay_of: id, fields: "summary" as const, limit: 3 };
      return accepted(await api.GET("/runs", { params: { query }, signal })) as RunSummaryPage;
    },
    staleTime: 0,
  });
}

/** Find the run of the same agent that was created last before this one; null for none. */
export function previousOfAgent(run: Run) {
  return queryOptions({
    queryKey: ["run", run.run_id, "previous"],
    enabled: run.agent_name !== null,
    queryFn: async ({ signal }): Promise<string | null> => {
      const query = { agent_name: run.agent_name ?? undefined, created_before: run.created_at, limit: 1 };
      return accepted(await api.GET("/runs", { params: { query }, signal })).runs[0]?.run_id ?? null;
    },
  });
}
