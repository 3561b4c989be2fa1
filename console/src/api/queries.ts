import { infiniteQueryOptions, QueryCache, QueryClient, queryOptions } from "@tanstack/react-query";
import { feed } from "../live/feed";
import { applyEvents, isShown, type RunRows } from "../live/runs";
import {
  ApiError,
  accepted,
  api,
  type Me,
  type Run,
  type RunSummaryPage,
  readExact,
  type Session,
  type SessionEvent,
} from "./client";
import { asQuery, type RunFilters } from "./filters";

export const PAGE_ROWS = 100;
// Further pages are read while the list is scrolled: few requests for long ones.
const LATER_PAGE_ROWS = 500;

/** Ask again who this page acts as when its session has ended; the shell then shows the sign-in. */
function noticeSignOut(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) {
    void queryClient.invalidateQueries({ queryKey: ["me"] });
  }
}

export const queryClient: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError: noticeSignOut }),
  defaultOptions: {
    queries: {
      // The feed tells about changes: nothing is asked for again because time has passed.
      staleTime: Number.POSITIVE_INFINITY,
      gcTime: 60_000,
      refetchOnWindowFocus: false,
      refetchOnReconnect: false,
      retry: (failures, error) => failures < 4 && !(error instanceof ApiError && error.status < 500),
      retryDelay: (failures) => Math.min(500 * 2 ** failures, 5000),
    },
  },
});

export interface RunPages {
  pages: RunRows[];
}

/** Read the runs of the filters: the first page, or again as many rows as are shown, as of now. */
export function runList(filters: RunFilters) {
  const queryKey = ["runs", filters] as const;
  return queryOptions({
    queryKey,
    queryFn: async ({ signal }): Promise<RunPages> => {
      await feed.joined();
      const shown = queryClient.getQueryData<RunPages>(queryKey)?.pages ?? [];
      const wanted = shown.reduce((rows, page) => rows + page.runs.length, 0);
      const pages = [await readRuns(filters, { limit: PAGE_ROWS }, signal)];
      for (let rows = PAGE_ROWS; rows < wanted; rows += LATER_PAGE_ROWS) {
        const cursor = pages.at(-1)?.next_cursor;
        if (!cursor) {
          break;
        }
        pages.push(await readRuns(filters, { cursor, limit: LATER_PAGE_ROWS }, signal));
      }
      // Events that came while later pages were read.
      return { pages: pages.map((page) => applyEvents(page, feed.since(page.feed_cursor))) };
    },
    // Comparing 100,000 rows field by field takes longer than drawing those in view.
    structuralSharing: false,
  });
}

/** Read the page behind the shown ones and add it; false if the list has changed meanwhile. */
export async function readMoreRuns(filters: RunFilters): Promise<boolean> {
  const { queryKey } = runList(filters);
  const cursor = queryClient.getQueryData<RunPages>(queryKey)?.pages.at(-1)?.next_cursor;
  if (!cursor) {
    return false;
  }
  const read = await readRuns(filters, { cursor, limit: LATER_PAGE_ROWS });
  let isAdded = false;
  queryClient.setQueryData<RunPages>(queryKey, (now) => {
    if (now?.pages.at(-1)?.next_cursor !== cursor) {
      return now;
    }
    isAdded = true;
    // A run whose place depends on its end may have been shown before.
    const runs = read.runs.filter((run) => !isShown(now.pages, run.run_id));
    return { pages: [...now.pages, { ...read, runs }] };
  });
  return isAdded;
}

export async function readRuns(
  filters: RunFilters,
  page: { cursor?: string | undefined; limit: number },
  signal?: AbortSignal,
): Promise<RunSummaryPage> {
  const query = { ...asQuery(filters), ...page, fields: "summary" as const };
  const found = accepted(await api.GET("/runs", { params: { query }, signal: signal ?? null })) as RunSummaryPage;
  return applyEvents(found, feed.since(found.feed_cursor));
}

export function oneRun(id: string) {
  return queryOptions({
    queryKey: ["run", id],
    queryFn: ({ signal }) => readExact<Run>(`runs/${encodeURIComponent(id)}`, signal),
  });
}

/** Read why a run does not run; asked for again while the page is open, since other runs and runners decide. */
export function whyRun(id: string) {
  return queryOptions({
    queryKey: ["run", id, "why"],
    queryFn: async ({ signal }) =>
      accepted(await api.GET("/runs/{run_id}/why", { params: { path: { run_id: id } }, signal })),
    refetchInterval: 3000,
  });
}

export function whyIdle(id: string) {
  return queryOptions({
    queryKey: ["runner", id, "why"],
    queryFn: async ({ signal }) =>
      accepted(await api.GET("/runners/{runner_id}/why-idle", { params: { path: { runner_id: id } }, signal })),
    refetchInterval: 3000,
  });
}

export function runTimeline(id: string) {
  return queryOptions({
    queryKey: ["run", id, "timeline"],
    queryFn: async ({ signal }) =>
      accepted(await api.GET("/runs/{run_id}/timeline", { params: { path: { run_id: id } }, signal })),
  });
}

export function sessionTree(id: string) {
  return queryOptions({
    queryKey: ["sessions", "tree", id],
    queryFn: async ({ signal }) => {
      const params = { path: { session_id: id }, query: { depth: 10, limit: 500 } };
      return accepted(await api.GET("/sessions/{session_id}/tree", { params, signal }));
    },
  });
}

/** Read who this page acts as; null while it has to sign in. */
export const whoAmI = queryOptions({
  queryKey: ["me"],
  queryFn: async ({ signal }): Promise<Me | null> => {
    const answer = await api.GET("/me", { signal });
    return answer.response.status === 401 ? null : accepted(answer);
  },
  refetchInterval: ({ state }) => (state.status === "error" ? 3000 : false),
});

export interface Result {
  result_text: unknown;
  result_data: unknown;
}

/** Read the result of a completed run; null when none is kept. */
export function runResult(id: string) {
  return queryOptions({
    queryKey: ["run", id, "result"],
    queryFn: async ({ signal }): Promise<Result | null> => {
      try {
        return await readExact<Result>(`runs/${encodeURIComponent(id)}/result`, signal);
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) {
          return null;
        }
        throw error;
      }
    },
  });
}

export function oneSession(id: string) {
  return queryOptions({
    queryKey: ["session", id],
    queryFn: async ({ signal }): Promise<Session> => {
      const path = { session_id: id };
      return accepted(await api.GET("/sessions/{session_id}", { params: { path }, signal })).session;
    },
  });
}

export interface SessionFilters {
  status?: string;
  parent?: string;
}

export function sessionList(filters: SessionFilters) {
  return infiniteQueryOptions({
    queryKey: ["sessions", filters],
    queryFn: async ({ pageParam, signal }) => {
      await feed.joined();
      const query = {
        status: filters.status ? [filters.status] : undefined,
        parent_session_id: filters.parent,
        cursor: pageParam ?? undefined,
        limit: PAGE_ROWS,
      };
      return accepted(await api.GET("/sessions", { params: { query }, signal }));
    },
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor ?? null,
  });
}

export const runnerList = queryOptions({
  queryKey: ["runners"],
  queryFn: async ({ signal }) => accepted(await api.GET("/runners", { signal })).runners,
  // Heartbeats are no events.
  refetchInterval: 5000,
});

export interface EventPage {
  events: SessionEvent[];
  feed_cursor: string;
  next_cursor?: string;
}

const EVENTS_OF_PAGE = 1000;

/** Read events of a session, or of a run, before a cursor (from the end without one), the newest first. */
export function readEventsBefore(
  session: string,
  run: string | null,
  before: string | undefined,
  signal?: AbortSignal,
): Promise<EventPage> {
  const query = new URLSearchParams({ limit: String(EVENTS_OF_PAGE), order: "desc" });
  if (run) {
    query.set("run_id", run);
  }
  if (before) {
    query.set("before", before);
  }
  return readExact<EventPage>(`sessions/${encodeURIComponent(session)}/events?${query}`, signal);
}
