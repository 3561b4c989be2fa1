import { createParser } from "eventsource-parser";
import { Limit, monotonic, sleep } from "./abort.js";
import { Backoff } from "./backoff.js";
import { CallFailed, Refused, Unreachable } from "./errors.js";
import type { components } from "./schema.js";
import type { Transport } from "./transport.js";

type Schemas = components["schemas"];

// The coordinator sends something at least every 30 s: a connection that is silent for longer is dead.
const SILENCE_SECONDS = 40;

/** Event of a session without its id in the database; the feed sends it so. */
export type SessionEvent = Omit<Schemas["Event"], "id">;

/** State of a run after a change. `reason`: what returned it to pending or stopped it. */
export type RunUpdate = Pick<Schemas["Run"], "run_id" | "session_id" | "status" | "runner_id" | "attempt" | "error"> & {
  reason?: string;
};

/** Names of the events of the feed, with the data of each. */
export interface FeedData {
  /** All sessions as they are; replaces everything that the reader has built up. */
  init: { sessions: Schemas["Session"][]; truncated?: boolean };
  session_created: { session: Schemas["Session"] };
  session_updated: { session: Schemas["Session"] };
  session_deleted: { session_id: string; runs_deleted: number };
  event: { data: Omit<SessionEvent, "feed_cursor"> };
  run_failed: { run_id: string; session_id: string; error: string | null };
  /** Comes only when `types` names it. */
  run_updated: { run: RunUpdate };
  /** Comes only when `types` names it, for admins. */
  audit: Schemas["AuditEntry"];
  /** History was skipped; an `init` follows. */
  reset: { reason: "expired" | "epoch" | "ahead" | "malformed" };
}

/**
 * Item of the feed. Reading after `id` goes on exactly behind it, on any instance; resuming from the id of a `reset`
 * gives the `init` that follows it again.
 */
export type FeedItem = {
  [Name in keyof FeedData]: { readonly id: string; readonly event: Name; readonly data: FeedData[Name] };
}[keyof FeedData];

export interface FeedOptions {
  /** Only events of this session. */
  sessionId?: string | undefined;
  /** Only events of this run. */
  runId?: string | undefined;
  /** Only events of this owner's sessions, while authentication is on. */
  createdBy?: string | undefined;
  /** Names of the events to get; none: all but `run_updated` and `audit`. */
  types?: readonly Exclude<keyof FeedData, "init" | "reset">[] | undefined;
  /** `id` of an item, or `feed_cursor` of a list: begin behind it. */
  after?: string | undefined;
  /** Begin with an `init` item. */
  init?: boolean | undefined;
  /** Longest time without a stream from any address; none: try for ever. */
  patienceSeconds?: number | undefined;
  /** Called with an address and the reason for which it gave no stream, or null when it gave one. */
  onConnection?: ((url: string, cause: string | null) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Reader of the feed at one position; use `items` once.
 *
 * The position is the id of the last complete frame, also of one without data. An incomplete frame of a broken
 * connection is dropped, and the next connection begins behind that id.
 */
export class Feed {
  private readonly path: string;
  private readonly backoff = new Backoff();
  private cursor: string;
  // Pauses in seconds that the coordinator asked for: on the stream, where they are jittered, and in error answers.
  private retry = 0;
  private retryAfter = 0;
  private hasStream = false;
  // Start of the time without a stream, number of addresses that failed in it, and their reasons.
  private withoutSince = 0;
  private failures = 0;
  private causes: Record<string, string> = {};

  constructor(
    private readonly transport: Transport,
    private readonly options: FeedOptions,
  ) {
    this.cursor = options.after ?? "";
    if (!/^[\x20-\x7e]*$/.test(this.cursor)) {
      throw new TypeError(`not a cursor of the feed: ${JSON.stringify(this.cursor)}`);
    }
    const query = new URLSearchParams({ include_init: String(options.init ?? false) });
    const { sessionId, runId, createdBy, types } = options;
    const filters = { session_id: sessionId, run_id: runId, created_by: createdBy, types: types?.join() || undefined };
    for (const [name, value] of Object.entries(filters)) {
      if (value !== undefined) {
        query.set(name, value);
      }
    }
    this.path = `/sse/sessions?${query}`;
  }

  /** Yield every item behind the position, each once and in order, without an end. */
  async *items(): AsyncGenerator<FeedItem, void, undefined> {
    const { urls, start } = this.transport;
    this.withoutSince = monotonic();
    for (let at = start; ; at = (at + 1) % urls.length) {
      const url = urls[at] as string;
      try {
        yield* this.connection(url);
      } catch (error) {
        if (
          !(error instanceof CallFailed) ||
          (error instanceof Refused && !error.isTransient && error.status !== 408)
        ) {
          throw error;
        }
        this.retryAfter = Math.max(this.retryAfter, error.retryAfter ?? 0);
        this.failed(url, error instanceof Unreachable ? (error.causes[url] ?? error.message) : error.message);
      }
      await this.rest();
    }
  }

  /** Yield the items of one connection to its end. Throws Refused and Unreachable. */
  private async *connection(url: string): AsyncGenerator<FeedItem, void, undefined> {
    const limit = new Limit(this.options.signal);
    try {
      limit.expireIn(SILENCE_SECONDS);
      const headers = new Headers(this.cursor ? { "Last-Event-ID": this.cursor } : {});
      const reader = (await this.transport.open(url, this.path, headers, limit)).getReader();
      this.hasStream = true;
      this.options.onConnection?.(url, null);
      const items: FeedItem[] = [];
      const parser = this.parserInto(items);
      const decoder = new TextDecoder();
      for (;;) {
        limit.expireIn(SILENCE_SECONDS);
        const part = await reader.read().catch((error) => Promise.reject(this.transport.failure(url, error, limit)));
        // The reader of the items has as much time as it wants.
        limit.hold();
        if (part.done) {
          return;
        }
        parser.feed(decoder.decode(part.value, { stream: true }));
        for (const item of items.splice(0)) {
          this.options.signal?.throwIfAborted();
          yield item;
        }
      }
    } finally {
      limit.end();
    }
  }

  /** Return a parser that adds the items of complete frames, and moves the position on with each frame. */
  private parserInto(items: FeedItem[]) {
    return createParser({
      onRetry: (milliseconds) => {
        this.retry = milliseconds / 1000;
      },
      // Called at the end of a frame, before its event.
      onId: (id) => {
        if (id) {
          this.cursor = id;
          this.backoff.reset();
        }
      },
      onEvent: ({ event, data }) => {
        if (data) {
          items.push({ id: this.cursor, event: event ?? "message", data: JSON.parse(data) } as FeedItem);
        }
      },
    });
  }

  /** Pause before the next connection, unless another address is to be tried first. */
  private async rest(): Promise<void> {
    if (this.hasStream) {
      this.hasStream = false;
      this.withoutSince = monotonic();
      this.failures = 0;
      this.causes = {};
    } else {
      this.failures += 1;
      if (this.failures % this.transport.urls.length > 0) {
        return;
      }
    }
    const pause = this.backoff.pause(Math.max(this.retry, this.retryAfter));
    this.retryAfter = 0;
    const patience = this.options.patienceSeconds ?? Number.POSITIVE_INFINITY;
    if (this.failures > 0 && monotonic() - this.withoutSince + pause > patience) {
      throw new Unreachable(this.causes);
    }
    await sleep(pause, this.options.signal);
  }

  private failed(url: string, cause: string): void {
    this.causes[url] = cause;
    this.options.onConnection?.(url, cause);
  }
}
