import { queryOptions } from "@tanstack/react-query";
import { readExact, sendText } from "./client";
import { queryClient } from "./queries";

export const REGISTRIES = ["agents", "capabilities", "scripts", "mcp-servers"] as const;
export type Registry = (typeof REGISTRIES)[number];

/** Entry of a registry, as far as its list shows it. */
export interface Entry {
  id?: string;
  name: string;
  description?: string | null;
  type?: string;
  status?: string;
  tags?: string[];
  script_name?: string | null;
  mcp_server_names?: string[];
  script_file?: string;
  demand_tags?: string[];
  url?: string;
  created_at: string;
  modified_at?: string;
  updated_at?: string;
}

export interface RegistrySearch {
  registry?: Registry;
  name?: string;
}

export function registrySearchFrom(search: Record<string, unknown>): RegistrySearch {
  const registry = REGISTRIES.find((each) => each === search.registry);
  const name = typeof search.name === "string" && search.name ? search.name : undefined;
  return { ...(registry && { registry }), ...(name && { name }) };
}

export function keyOf(registry: Registry, entry: Entry): string {
  return registry === "mcp-servers" ? (entry.id ?? entry.name) : entry.name;
}

// Acts tell administrators of changes; others ask again.
const ASK_AGAIN_MILLISECONDS = 10_000;

/** Read all entries of a registry; agents as they were written, so that one that cannot be resolved is listed too. */
export function entryList(registry: Registry) {
  return queryOptions({
    queryKey: ["registries", registry],
    queryFn: ({ signal }) => readExact<Entry[]>(registry === "agents" ? "agents?raw=true" : registry, signal),
    staleTime: 0,
    refetchInterval: ASK_AGAIN_MILLISECONDS,
  });
}

/** Read an entry; an agent as it was written, or with its capabilities merged. */
export function oneEntry(registry: Registry, name: string, resolved = false) {
  const query = registry === "agents" && !resolved ? "?raw=true" : "";
  return queryOptions({
    queryKey: ["registries", registry, name, resolved],
    queryFn: ({ signal }) => readExact<Entry>(`${registry}/${encodeURIComponent(name)}${query}`, signal),
    staleTime: 0,
    refetchInterval: ASK_AGAIN_MILLISECONDS,
  });
}

export async function setAgentStatus(name: string, status: "active" | "inactive"): Promise<void> {
  await sendText<Entry>("PATCH", `agents/${encodeURIComponent(name)}/status`, JSON.stringify({ status }));
  await queryClient.invalidateQueries({ queryKey: ["registries"] });
}
