import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { accepted, api } from "./client";
import { queryClient } from "./queries";
import type { components } from "./schema";

export type AuditEntry = components["schemas"]["AuditEntry"];
export type Key = components["schemas"]["Key"];
export type NewKey = components["schemas"]["CreateKey"];

/** Filters of the audit page, as they stand in its address; times in UTC. */
export interface AuditFilters {
  by?: string;
  act?: string;
  target?: string;
  since?: string;
  until?: string;
}

export const AUDIT_FILTERS = ["by", "act", "target", "since", "until"] as const;

export function auditFiltersFrom(search: Record<string, unknown>): AuditFilters {
  const given = AUDIT_FILTERS.flatMap((name) => {
    const value = search[name];
    const isTime = name === "since" || name === "until";
    return typeof value === "string" && value && !(isTime && Number.isNaN(Date.parse(value))) ? [[name, value]] : [];
  });
  return Object.fromEntries(given);
}

export function auditLog(filters: AuditFilters) {
  return infiniteQueryOptions({
    queryKey: ["audit", filters],
    queryFn: async ({ pageParam, signal }) => {
      const query = { ...filters, cursor: pageParam ?? undefined };
      return accepted(await api.GET("/audit", { params: { query }, signal }));
    },
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor ?? null,
    staleTime: 0,
  });
}

export const keyList = queryOptions({
  queryKey: ["keys"],
  queryFn: async ({ signal }) => accepted(await api.GET("/keys", { signal })).keys,
  staleTime: 0,
});

/** Create a key and return it with its secret, which no one can read again. */
export async function createKey(key: NewKey) {
  const made = accepted(await api.POST("/keys", { body: key }));
  await queryClient.invalidateQueries({ queryKey: keyList.queryKey });
  return made;
}

export async function revokeKey(id: string): Promise<void> {
  accepted(await api.DELETE("/keys/{key_id}", { params: { path: { key_id: id } } }));
  await queryClient.invalidateQueries({ queryKey: keyList.queryKey });
}
