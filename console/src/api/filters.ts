/** Filters of the runs page, as they stand in its address. */
export interface RunFilters {
  status?: string[];
  not_status?: string[];
  agent?: string;
  label?: string[];
  runner?: string;
  session?: string;
  owner?: string;
  /** Run whose replays are shown. */
  replay_of?: string;
  /** Text that the error contains. */
  error?: string;
  /** Id, or the begin of a generated one. */
  q?: string;
  /** Times as ISO 8601 texts, or durations before now: `30m`, `24h`, `7d`. */
  created_after?: string;
  created_before?: string;
  ended_after?: string;
  ended_before?: string;
  order?: "ended";
}

/** Search of the address of the runs page: its filters, the name of a view, and whether the default view is left out. */
export interface RunsSearch extends RunFilters {
  view?: string;
  all?: true;
}

export const STATUSES = ["pending", "claimed", "running", "stopping", "completed", "failed", "stopped"] as const;
export const UNFINISHED: readonly string[] = ["pending", "claimed", "running", "stopping"];
export const TEXTS = ["agent", "session", "runner", "owner", "replay_of", "error", "q"] as const;
export const MOMENTS = ["created_after", "created_before", "ended_after", "ended_before"] as const;
const UNITS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 };
const LONGEST_NAME = 80;

/** Return the filters that an address holds; what is no filter is left out. */
export function filtersFrom(search: Record<string, unknown>): RunFilters {
  const filters: RunFilters = {};
  for (const name of ["status", "not_status"] as const) {
    const statuses = texts(search[name]).filter((status) => (STATUSES as readonly string[]).includes(status));
    if (statuses.length) {
      filters[name] = statuses;
    }
  }
  const labels = texts(search.label).filter((label) => label.includes("="));
  if (labels.length) {
    filters.label = labels;
  }
  for (const name of TEXTS) {
    const value = texts(search[name])[0];
    if (value) {
      filters[name] = value;
    }
  }
  for (const name of MOMENTS) {
    const value = texts(search[name])[0];
    if (value && momentOf(value, 0) !== null) {
      filters[name] = value;
    }
  }
  if (search.order === "ended") {
    filters.order = "ended";
  }
  return filters;
}

export function searchFrom(search: Record<string, unknown>): RunsSearch {
  const view = texts(search.view)[0]?.slice(0, LONGEST_NAME);
  return { ...filtersFrom(search), ...(view ? { view } : {}), ...(search.all === true ? { all: true as const } : {}) };
}

export function isFiltered(filters: RunFilters): boolean {
  return Object.keys(filters).length > 0;
}

/** Return whether two sets of filters are the same, in whatever order they were chosen. */
export function areSame(one: RunFilters, other: RunFilters): boolean {
  return canonical(one) === canonical(other);
}

function canonical(filters: RunFilters): string {
  const entries = Object.entries(filters).map(([name, value]) => [
    name,
    Array.isArray(value) ? [...value].sort() : value,
  ]);
  return JSON.stringify(entries.sort(([one], [other]) => String(one).localeCompare(String(other))));
}

/** Return the time of a moment of a filter, in ISO 8601; null for a text that names none. */
export function momentOf(text: string, now: number): string | null {
  const found = /^(\d{1,5})([mhd])$/.exec(text);
  const time = found ? now - Number(found[1]) * (UNITS[found[2] ?? ""] ?? 0) : Date.parse(text);
  return Number.isNaN(time) || Math.abs(time) > 8.64e15 ? null : new Date(time).toISOString();
}

/** Return the filters as parameters of `GET /runs`; durations count back from `now`. */
export function asQuery(filters: RunFilters, now = Date.now()) {
  const moment = (text: string | undefined) => (text === undefined ? undefined : (momentOf(text, now) ?? undefined));
  return {
    status: filters.status,
    not_status: filters.not_status as (typeof STATUSES)[number][] | undefined,
    label: filters.label,
    agent_name: filters.agent,
    runner_id: filters.runner,
    session_id: filters.session,
    owner: filters.owner,
    replay_of: filters.replay_of,
    error_contains: filters.error,
    q: filters.q,
    created_after: moment(filters.created_after),
    created_before: moment(filters.created_before),
    ended_after: moment(filters.ended_after),
    ended_before: moment(filters.ended_before),
    order: filters.order,
  };
}

function texts(value: unknown): string[] {
  const values = Array.isArray(value) ? value : [value];
  return values.filter((each) => each !== undefined && each !== null && each !== "").map(String);
}
