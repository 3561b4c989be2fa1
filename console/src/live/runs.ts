import type { RunSummary } from "../api/client";
import { type Cursor, isLater, parseCursor } from "./cursor";
import type { FeedEvent } from "./messages";

/** Fields of a run that the feed tells. */
export type RunUpdate = Pick<RunSummary, "run_id" | "session_id" | "status" | "runner_id" | "attempt" | "error">;

/** Rows of the list with the position of the snapshot that they are from. */
export interface RunRows {
  runs: RunSummary[];
  feed_cursor: string;
  next_cursor?: string | undefined;
  /** Time of the last run that a bounded search looked at. */
  searched_until?: string | undefined;
}

export interface PositionedUpdate {
  at: Cursor | null;
  run: RunUpdate;
}

const ERROR_CHARACTERS = 200;

/** Position that a row is from, where that is later than its page's: events up to it say nothing new of the row. */
const rowPositions = new WeakMap<RunSummary, Cursor | null>();

export function updatesOf(events: readonly FeedEvent[]): PositionedUpdate[] {
  return events.flatMap((event) => {
    const run = event.type === "run_updated" ? (event.data as { run?: RunUpdate }).run : undefined;
    return run ? [{ at: parseCursor(event.id), run }] : [];
  });
}

const places = new WeakMap<readonly RunSummary[], ReadonlyMap<string, number>>();

/** Return at which places of a page its runs are: a list of 1,000 pages is asked for each event. */
export function placesIn(runs: readonly RunSummary[]): ReadonlyMap<string, number> {
  let known = places.get(runs);
  if (!known) {
    known = new Map(runs.map((run, place) => [run.run_id, place]));
    places.set(runs, known);
  }
  return known;
}

/** Return the page with the events applied that are later than it; the same page when none concerns it. */
export function applyEvents<Page extends RunRows>(page: Page, events: readonly FeedEvent[]): Page {
  return applyUpdates(page, updatesOf(events));
}

export function applyUpdates<Page extends RunRows>(page: Page, updates: readonly PositionedUpdate[]): Page {
  const known = placesIn(page.runs);
  const concerned = updates.filter(({ run }) => known.has(run.run_id));
  if (concerned.length === 0) {
    return page;
  }
  const snapshot = parseCursor(page.feed_cursor);
  const runs = [...page.runs];
  let isChanged = false;
  for (const { at, run: change } of concerned) {
    const place = known.get(change.run_id);
    const run = place === undefined ? undefined : runs[place];
    if (place !== undefined && run && isLater(at, rowPositions.get(run) ?? snapshot)) {
      const changed = { ...run, ...change, error: change.error?.slice(0, ERROR_CHARACTERS) ?? null };
      rowPositions.set(changed, at);
      runs[place] = changed;
      isChanged = true;
    }
  }
  return isChanged ? withRuns(page, runs) : page;
}

/** Return the page with rows replaced by those of another snapshot, as far as it has them and they are newer. */
export function replaceRows<Page extends RunRows>(page: Page, newer: RunRows): Page {
  const known = placesIn(page.runs);
  const snapshot = parseCursor(newer.feed_cursor);
  const runs = [...page.runs];
  let isChanged = false;
  for (const run of newer.runs) {
    const place = known.get(run.run_id);
    const shown = place === undefined ? undefined : runs[place];
    const position = rowPositions.get(run) ?? snapshot;
    // Events may have been faster than the snapshot.
    if (place !== undefined && shown && isLater(position, rowPositions.get(shown) ?? parseCursor(page.feed_cursor))) {
      rowPositions.set(run, position);
      runs[place] = run;
      isChanged = true;
    }
  }
  return isChanged ? withRuns(page, runs) : page;
}

/** Return the page with these versions of its runs, which are at the same places. */
function withRuns<Page extends RunRows>(page: Page, runs: RunSummary[]): Page {
  places.set(runs, placesIn(page.runs));
  return { ...page, runs };
}

export function isShown(pages: readonly RunRows[], id: string): boolean {
  return pages.some((page) => placesIn(page.runs).has(id));
}

export interface Merged {
  fresh: RunSummary[];
  /** Whether rows may be missing between the fresh ones and those that are shown. */
  gap: boolean;
}

/** Return which rows of the newest page the shown pages lack. */
export function freshRows(shown: readonly RunRows[], newest: RunRows): Merged {
  const fresh = newest.runs.filter((run) => !isShown(shown, run.run_id));
  const isEmpty = shown.every((page) => page.runs.length === 0);
  const gap = fresh.length === newest.runs.length && newest.next_cursor !== undefined && !isEmpty;
  return { fresh, gap };
}
