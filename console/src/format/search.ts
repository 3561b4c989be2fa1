import { filtersFrom, type RunFilters, STATUSES, TEXTS } from "../api/filters";

const MOMENT_KEYS = { since: "created_after", before: "created_before", ended: "ended_after" } as const;

export type Destination =
  | { kind: "run"; id: string }
  | { kind: "session"; id: string }
  | { kind: "runner"; id: string }
  | { kind: "runs"; filters: RunFilters };

/** Return where the text of the search box leads: to the thing with that id, or to the runs that it describes. */
export function destinationOf(text: string): Destination | null {
  const words = text.trim().match(/(?:[^\s"]+|"[^"]*")+/g) ?? [];
  const first = words[0];
  if (!first) {
    return null;
  }
  if (words.length === 1 && !/^[a-z]+:/.test(first)) {
    if (/^run_/.test(first)) {
      return { kind: "run", id: first };
    }
    if (/^lnch_/.test(first)) {
      return { kind: "runner", id: first };
    }
    if ((STATUSES as readonly string[]).includes(first)) {
      return { kind: "runs", filters: { status: [first] } };
    }
    return { kind: "session", id: first };
  }
  return { kind: "runs", filters: filtersOf(words) };
}

function filtersOf(words: string[]): RunFilters {
  const filters: RunFilters = {};
  for (const word of words) {
    const colon = word.indexOf(":");
    const key = word.slice(0, colon);
    const value = word.slice(colon + 1).replace(/^"|"$/g, "");
    if (colon <= 0 || !value) {
      continue;
    }
    if (key === "status") {
      filters.status = [...(filters.status ?? []), ...value.split(",")];
    } else if (key === "not") {
      filters.not_status = [...(filters.not_status ?? []), ...value.split(",")];
    } else if (key === "since" || key === "before" || key === "ended") {
      filters[MOMENT_KEYS[key]] = value;
    } else if (key === "label") {
      filters.label = [...(filters.label ?? []), value];
    } else if ((TEXTS as readonly string[]).includes(key)) {
      filters[key as (typeof TEXTS)[number]] = value;
    }
  }
  return filtersFrom({ ...filters });
}
