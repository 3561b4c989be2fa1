import { readText } from "./client";
import { asQuery, type RunFilters, STATUSES } from "./filters";
import type { components } from "./schema";

export type Bulk = components["schemas"]["Bulk"];
export type BulkAction = Bulk["action"];
/** Result of a dry run. Its token starts exactly this. */
export type BulkPlan = components["schemas"]["BulkPreview"];

/** Runs that a bulk action is about: these, or all that match the filters. */
export type BulkScope = { ids: readonly string[] } | { filters: RunFilters };

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
  const sent =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return JSON.parse(await readText(path, { method, ...sent, signal: signal ?? null })) as Shape;
}
