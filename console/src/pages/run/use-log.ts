import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError, type SessionEvent } from "../../api/client";
import { readEventsBefore } from "../../api/queries";
import { isAfter } from "../../live/cursor";
import { feed, useFeedEvents } from "../../live/feed";
import type { FeedEvent } from "../../live/messages";
import { type Line, linesOf } from "./lines";

// Events that are read at once, from the end backwards.
const MOST_EVENTS = 5000;
const RETRY_MILLISECONDS = 3000;

export interface LogState {
  lines: Line[];
  isLoading: boolean;
  error: unknown;
  /** Cursor before which earlier events stand; null when all are read. */
  earlier: string | null;
}

const NOTHING: LogState = { lines: [], isLoading: true, error: null, earlier: null };

type Owned = Pick<SessionEvent, "session_id" | "run_id">;

/** Keep the lines of a log, which grow at both ends. */
function useLines(session: string, run: string | null) {
  const [log, setLog] = useState<LogState>(NOTHING);
  const append = useCallback(
    (events: Owned[]) => {
      const own = events.filter((event) => event.session_id === session && (run === null || event.run_id === run));
      setLog((known) => {
        const added = linesOf(own as SessionEvent[], (known.lines.at(-1)?.key ?? -1) + 1);
        return { ...known, lines: added.length ? [...known.lines, ...added] : known.lines };
      });
    },
    [session, run],
  );
  const prepend = useCallback((events: SessionEvent[], earlier: string | null) => {
    setLog((known) => {
      const lines = linesOf(events);
      const first = (known.lines[0]?.key ?? 0) - lines.length;
      const added = lines.map((line, place) => ({ ...line, key: first + place }));
      return { lines: [...added, ...known.lines], isLoading: false, error: null, earlier };
    });
  }, []);
  return { log, setLog, append, prepend };
}

/**
 * Read the newest events of a run (of the whole session without one), then follow them by the feed without gap or
 * repeat; earlier ones when asked.
 */
export function useLog(session: string, run: string | null) {
  const { log, setLog, append, prepend } = useLines(session, run);
  const [tries, setTries] = useState(0);
  const cursor = useRef<string | null>(null);
  const waiting = useRef<FeedEvent[]>([]);

  const onEvents = useCallback(
    (events: FeedEvent[]) => {
      const logs = events.filter((event) => event.type === "event");
      if (cursor.current === null) {
        waiting.current.push(...logs);
      } else if (logs.length > 0) {
        append(logsAfter(logs, cursor.current));
      }
    },
    [append],
  );
  useFeedEvents(onEvents);

  const read = useCallback(
    async (before: string | undefined, signal?: AbortSignal) => {
      const onFirst = (first: string) => {
        cursor.current = first;
        append(logsAfter(waiting.current.splice(0), first));
      };
      const { events, earlier } = await readBackwards(session, run, before, before ? null : onFirst, signal);
      prepend(events, earlier);
    },
    [append, prepend, run, session],
  );

  useEffect(() => {
    const abort = new AbortController();
    const release = feed.include("event");
    const again = () => abort.signal.aborted || setTries((count) => count + 1);
    setLog(NOTHING);
    cursor.current = null;
    waiting.current = [];
    void feed
      .joined()
      .then(() => read(undefined, abort.signal))
      .catch((error: unknown) => {
        if (!abort.signal.aborted) {
          setLog((known) => ({ ...known, isLoading: false, error }));
          if (!(error instanceof ApiError && error.status < 500)) {
            setTimeout(again, RETRY_MILLISECONDS);
          }
        }
      });
    // What was read before the stream began to deliver may lack events from in between.
    const stopListening = feed.onJoined((joined) => {
      if (cursor.current !== null && (joined === null || isAfter(joined, cursor.current))) {
        again();
      }
    });
    return () => {
      abort.abort();
      stopListening();
      release();
    };
  }, [read, setLog, tries]);

  return { log, readEarlier: () => readEarlier(log, setLog, read) };
}

async function readEarlier(
  log: LogState,
  setLog: (change: (known: LogState) => LogState) => void,
  read: (before: string) => Promise<void>,
): Promise<void> {
  if (log.earlier && !log.isLoading) {
    setLog((known) => ({ ...known, isLoading: true, error: null }));
    await read(log.earlier).catch((error: unknown) => setLog((known) => ({ ...known, isLoading: false, error })));
  }
}

/** Read events before a cursor (from the end without one) page by page, and return them in their order. */
async function readBackwards(
  session: string,
  run: string | null,
  before: string | undefined,
  onFirst: ((cursor: string) => void) | null,
  signal: AbortSignal | undefined,
) {
  const events: SessionEvent[] = [];
  let earlier = before;
  let isFirst = true;
  do {
    const page = await readEventsBefore(session, run, earlier, signal);
    if (isFirst) {
      onFirst?.(page.feed_cursor);
      isFirst = false;
    }
    // Those without a position yet come by the feed.
    events.push(...page.events.filter((event) => event.feed_cursor !== null));
    earlier = page.next_cursor;
  } while (earlier !== undefined && events.length < MOST_EVENTS);
  return { events: events.reverse(), earlier: earlier ?? null };
}

function logsAfter(events: FeedEvent[], cursor: string): Owned[] {
  return events
    .filter((event) => isAfter(event.id, cursor))
    .map((event) => (event.data as { data: SessionEvent }).data);
}
