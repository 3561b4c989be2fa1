import { apiRoot } from "../location";
import { ApiError, CONSOLE_HEADERS, type RunSummary } from "./client";
import { asQuery, type RunFilters, STATUSES } from "./filters";

export type BulkAction = "stop" | "delete" | "replay";

/** Runs that a bulk action is about: these, or all that match the filters. */
export type BulkScope = { ids: readonly string[] } | { filters: RunFilters };

/** Result of a dry run. Its token starts exactly this. */
export interface BulkPlan {
  matches: number;
  exact: boolean;
  searched_until: string | null;
  sample: RunSummary[];
  token: string;
  expires_at: string;
}

export interface Bulk {
  bulk_id: string;
  action: BulkAction;
  state: "running" | "completed" | "stopped" | "failed";
  total: number;
  done: number;
  changed: number;
  skipped: Record<string, number>;
  errors: { run_id: string; error: string }[];
  created_at: string;
  ended_at: string | null;
}

/** Most runs that one bulk action names. */
export const MOST_NAMED = 1000;

/** Ask which runs an action would be about; nothing changes. */
export function planBulk(action: BulkAction, scope: BulkScope, signal?: AbortSignal): Promise<BulkPlan> {
  const which = "ids" in scope ? { run_ids: scope.ids } : { filter: filterOf(scope.filters) };
  return call("POST", "bulk", { action, ...which, dry_run: true }, signal);
}

export async function startBulk(plan: BulkPlan): Promise<string> {
  return (await call<{ bulk_id: string }>("POST", "bulk", { token: plan.token })).bulk_id;
}

export function readBulk(id: string, signal?: AbortSignal): Promise<Bulk> {
  return call("GET", `bulk/${encodeURIComponent(id)}`, undefined, signal);
}

export function stopBulk(id: string): Promise<Bulk> {
  return call("POST", `bulk/${encodeURIComponent(id)}/stop`);
}

/** Return the filter of a bulk action; the API wants all runs to be named by their statuses. */
function filterOf(filters: RunFilters): Record<string, unknown> {
  const given = Object.entries(asQuery(filters)).filter(([, value]) => value !== undefined);
  return given.length > 0 ? Object.fromEntries(given) : { status: STATUSES };
}

async function call<Shape>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Shape> {
  const headers = { ...CONSOLE_HEADERS, ...(body === undefined ? {} : { "Content-Type": "application/json" }) };
  const response = await fetch(apiRoot + path, {
    method,
    headers,
    body: body === undefined ? null : JSON.stringify(body),
    signal: signal ?? null,
  });
  const answer = (await response.json().catch(() => ({}))) as { detail?: unknown };
  if (!response.ok) {
    throw new ApiError(response.status, answer.detail);
  }
  return answer as Shape;
}
