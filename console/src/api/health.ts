import { queryOptions } from "@tanstack/react-query";
import type { Asked } from "../format/health";
import { apiRoot } from "../location";
import { queryClient } from "./queries";

const WELL_MILLISECONDS = 5000;
const ILL_MILLISECONDS = 2000;
const PATIENCE_MILLISECONDS = 8000;

/** Ask the coordinator how it is, more often while something is wrong. No event of the feed could tell. */
export const health = queryOptions({
  queryKey: ["health"],
  queryFn: ({ signal }): Promise<Asked> => askHealth(signal),
  refetchInterval: ({ state }) => (isWell(state.data) ? WELL_MILLISECONDS : ILL_MILLISECONDS),
  retry: false,
});

function isWell(asked: Asked | undefined): boolean {
  return asked === undefined || asked.body?.status === "ready" || asked.body?.status === "draining";
}

/** Read again what could not be read: the coordinator answers again. */
export function readFailedAgain(): void {
  void queryClient.invalidateQueries({
    predicate: ({ state }) => state.status === "error" || state.fetchFailureCount > 0,
  });
}

async function askHealth(signal: AbortSignal): Promise<Asked> {
  try {
    const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MILLISECONDS)]);
    const response = await fetch(`${apiRoot}health/ready`, { signal: patience, cache: "no-store" });
    const body: unknown = await response.json().catch(() => null);
    const isOurs = typeof body === "object" && body !== null && "status" in body;
    return { status: response.status, body: isOurs ? (body as Asked["body"]) : null };
  } catch {
    return { status: 0, body: null };
  }
}
