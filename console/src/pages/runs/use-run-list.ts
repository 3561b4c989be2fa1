import { useQuery } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { RunSummary } from "../../api/client";
import type { RunFilters } from "../../api/filters";
import { PAGE_ROWS, queryClient, type RunPages, readMoreRuns, readRuns, runList } from "../../api/queries";
import { feed, useFeedEvents } from "../../live/feed";
import type { FeedEvent } from "../../live/messages";
import { applyEvents, freshRows, isShown, type RunRows, updatesOf } from "../../live/runs";

const LOOK_MILLISECONDS = 500;

export interface Fresh {
  page: RunRows;
  rows: RunSummary[];
  gap: boolean;
}

export interface More {
  /** Whether the server has more rows behind the shown ones. */
  exists: boolean;
  /** Time up to which a bounded search has looked; it goes on only when asked to. */
  searchedUntil: string | null;
  error: unknown;
  load: () => void;
}

/**
 * Runs of the filters, newest first. Rows that are shown change in place; new ones wait in `fresh` until `showFresh`,
 * so that no row moves under the pointer.
 */
export function useRunList(filters: RunFilters) {
  const options = useMemo(() => runList(filters), [filters]);
  const list = useQuery(options);
  const runs = useMemo(() => list.data?.pages.flatMap((page) => page.runs) ?? [], [list.data]);
  const { fresh, showFresh } = useFresh(filters);
  const more = useMore(filters, list.data);
  return { list, runs, fresh, showFresh, more };
}

function useFresh(filters: RunFilters) {
  const { queryKey } = useMemo(() => runList(filters), [filters]);
  const [fresh, setFresh] = useState<Fresh | null>(null);
  const looked = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const look = useCallback(async () => {
    looked.current = undefined;
    const page = await readRuns(filters, { limit: PAGE_ROWS });
    const shown = queryClient.getQueryData<RunPages>(queryKey);
    if (shown) {
      const { fresh: rows, gap } = freshRows(shown.pages, page);
      setFresh(rows.length > 0 ? { page, rows, gap } : null);
    }
  }, [filters, queryKey]);
  const onEvents = useCallback(
    (events: FeedEvent[]) => {
      const shown = queryClient.getQueryData<RunPages>(queryKey)?.pages;
      if (shown && updatesOf(events).some(({ run }) => !isShown(shown, run.run_id))) {
        looked.current ??= setTimeout(() => void look().catch(() => undefined), LOOK_MILLISECONDS);
      }
    },
    [look, queryKey],
  );
  useFeedEvents(onEvents);
  useEffect(() => {
    setFresh(null);
    return () => {
      clearTimeout(looked.current);
      looked.current = undefined;
    };
  }, [look]);
  const showFresh = useCallback(() => {
    if (fresh) {
      queryClient.setQueryData<RunPages>(queryKey, (pages) => (pages ? withFresh(pages, fresh) : pages));
      setFresh(null);
    }
  }, [fresh, queryKey]);
  return { fresh, showFresh };
}

/** Put the fresh rows in front; where rows may be missing in between, the newest page replaces all. */
function withFresh({ pages }: RunPages, fresh: Fresh): RunPages {
  const replaces = fresh.gap || pages.every((page) => page.runs.length === 0);
  const runs = replaces ? fresh.page.runs : fresh.rows.filter((run) => !isShown(pages, run.run_id));
  const page = applyEvents({ ...fresh.page, runs }, feed.since(fresh.page.feed_cursor));
  return { pages: replaces ? [page] : [page, ...pages] };
}

function useMore(filters: RunFilters, data: RunPages | undefined): More {
  const [error, setError] = useState<unknown>(null);
  const isBusy = useRef(false);
  const last = data?.pages.at(-1);
  const load = useCallback(async () => {
    if (isBusy.current) {
      return;
    }
    isBusy.current = true;
    setError(null);
    try {
      await readMoreRuns(filters);
    } catch (fault) {
      setError(fault);
    } finally {
      isBusy.current = false;
    }
  }, [filters]);
  return {
    exists: last?.next_cursor !== undefined,
    searchedUntil: last?.searched_until ?? null,
    error,
    load: useCallback(() => void load(), [load]),
  };
}
