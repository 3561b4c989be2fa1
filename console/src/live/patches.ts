import { accepted, api, type RunSummaryPage } from "../api/client";
import { queryClient, type RunPages } from "../api/queries";
import { isAfter } from "./cursor";
import { feed } from "./feed";
import type { FeedEvent } from "./messages";
import { applyEvents, applyUpdates, isShown, type RunRows, replaceRows, updatesOf } from "./runs";

const REFRESH_MILLISECONDS = 700;
const MOST_REFRESHED = 200;
// Refreshes that may fail one after another; the next change of a row asks for it again.
const MOST_FAILURES = 5;

/** Runs whose rows are shown and have changed: their other fields (times, readiness) are read again together. */
const changed = new Set<string>();
let isRefreshDue = false;
let failures = 0;

/** Keep what the pages show up to date with the feed. */
export function startPatches(): void {
  feed.subscribe(patch);
  feed.onJoined(readAgainBefore);
}

function patch(events: FeedEvent[]): void {
  const updates = updatesOf(events);
  eachRunList((pages) => mapPages(pages, (page) => applyUpdates(page, updates)));
  const lists = runLists();
  for (const id of new Set(updates.map((update) => update.run.run_id))) {
    if (queryClient.getQueryState(["run", id])) {
      void queryClient.invalidateQueries({ queryKey: ["run", id] });
    }
    if (lists.some(([, pages]) => pages && isShown(pages.pages, id))) {
      changed.add(id);
    }
  }
  planRefresh();
  patchSessions(events);
}

function patchSessions(events: FeedEvent[]): void {
  const kinds = new Set(events.map((event) => event.type));
  if (!kinds.has("session_created") && !kinds.has("session_updated") && !kinds.has("session_deleted")) {
    return;
  }
  for (const event of events) {
    const data = event.data as { session?: { session_id: string } };
    if (data.session) {
      queryClient.setQueryData(["session", data.session.session_id], (known) => (known ? data.session : undefined));
    }
  }
  void queryClient.invalidateQueries({ queryKey: ["sessions"] }, { cancelRefetch: false });
}

function planRefresh(): void {
  if (changed.size > 0 && !isRefreshDue) {
    isRefreshDue = true;
    setTimeout(() => void refresh(), REFRESH_MILLISECONDS);
  }
}

/** Read rows that have changed again, so many at once; the others and those that could not be read come next. */
async function refresh(): Promise<void> {
  const ids = [...changed].slice(0, MOST_REFRESHED);
  for (const id of ids) {
    changed.delete(id);
  }
  try {
    const query = { run_id: ids, limit: MOST_REFRESHED, fields: "summary" as const };
    const read = accepted(await api.GET("/runs", { params: { query } })) as RunSummaryPage;
    const rows = applyEvents(read, feed.since(read.feed_cursor));
    eachRunList((pages) => mapPages(pages, (page) => replaceRows(page, rows)));
    failures = 0;
  } catch {
    failures += 1;
    for (const id of failures < MOST_FAILURES ? ids : []) {
      changed.add(id);
    }
  }
  isRefreshDue = false;
  planRefresh();
}

function runLists(): [readonly unknown[], RunPages | undefined][] {
  return queryClient.getQueriesData<RunPages>({ queryKey: ["runs"] });
}

function eachRunList(change: (pages: RunPages) => RunPages): void {
  for (const [key, pages] of runLists()) {
    const made = pages ? change(pages) : undefined;
    if (made && made !== pages) {
      queryClient.setQueryData(key, made);
    }
  }
}

function mapPages(pages: RunPages, change: (page: RunRows) => RunRows): RunPages {
  const made = pages.pages.map(change);
  return made.some((page, place) => page !== pages.pages[place]) ? { ...pages, pages: made } : pages;
}

/** Read again what was read before the stream began to deliver: it may lack changes from in between. */
function readAgainBefore(cursor: string | null): void {
  void queryClient.invalidateQueries({
    predicate: (query) => {
      const data = query.state.data as Partial<RunPages> | undefined;
      const pages = data?.pages as { feed_cursor?: string }[] | undefined;
      if (cursor === null || !pages) {
        return true;
      }
      return pages.some((page) => !page.feed_cursor || isAfter(cursor, page.feed_cursor));
    },
  });
}
