import type { CoordinatorClient } from "./client.js";
import { describe, Refused } from "./errors.js";
import type { FeedItem, SessionEvent } from "./feed.js";
import { insist, TERMINAL_STATUSES } from "./outcomes.js";

// Statuses of a session without an unfinished run.
const QUIET: ReadonlySet<string> = new Set(["idle", "finished", "failed", "stopped"]);
const TYPES = ["event", "run_updated", "session_updated", "session_deleted"] as const;
const PAGE = 1000;

/** The coordinator cannot go on behind a position, since later events are not kept or it knows it not. */
export class HistoryLost extends Error {
  override readonly name = "HistoryLost";

  /** `reason`: as in `reset` of the feed, or the coordinator's text. */
  constructor(readonly reason: string) {
    super(`events behind the position are not available: ${reason}`);
  }
}

export interface FollowOptions {
  /** `feed_cursor` of an event: begin behind it. */
  after?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** Follow a run, or a session as a whole, to its end. */
export async function* followEvents(
  client: CoordinatorClient,
  followed: string | { sessionId: string },
  options: FollowOptions,
): AsyncGenerator<SessionEvent, void, undefined> {
  const { signal } = options;
  const runId = typeof followed === "string" ? followed : undefined;
  const sessionId =
    typeof followed === "string"
      ? (await insist(() => client.run(followed, { signal }), signal)).session_id
      : followed.sessionId;
  const reader = new Follower(client, sessionId, runId, options);
  yield* reader.numbered();
  yield* reader.untilEnd();
  yield* reader.rest();
}

/**
 * Run or session that is followed, and the position up to which its events were given out.
 *
 * The stored events with a position are read first, then whether the end has come, then the feed from that position:
 * an end that was not there at the look has a later position. What is stored behind the end is read last.
 */
class Follower {
  private cursor: string | undefined;
  private readonly signal: AbortSignal | undefined;

  constructor(
    private readonly client: CoordinatorClient,
    private readonly sessionId: string,
    private readonly runId: string | undefined,
    options: FollowOptions,
  ) {
    this.cursor = options.after;
    this.signal = options.signal;
  }

  /** Yield the stored events that have a position. */
  async *numbered(): AsyncGenerator<SessionEvent, void, undefined> {
    const { signal } = this;
    const head = (await insist(() => this.client.sessions({ limit: 1 }, { signal }), signal)).feed_cursor;
    for await (const event of this.stored()) {
      if (event.feed_cursor === null) {
        break;
      }
      this.cursor = event.feed_cursor;
      yield event;
    }
    this.cursor ||= head;
  }

  /** Yield later events as they come, until the end. */
  async *untilEnd(): AsyncGenerator<SessionEvent, void, undefined> {
    if (await this.hasEnded()) {
      return;
    }
    const { sessionId, signal } = this;
    for await (const item of this.client.feed({ sessionId, types: TYPES, after: this.cursor, signal })) {
      if (item.event === "reset") {
        throw new HistoryLost(item.data.reason);
      }
      this.cursor = item.id;
      if (item.event === "event") {
        if (this.runId === undefined || item.data.data.run_id === this.runId) {
          yield { ...item.data.data, feed_cursor: item.id };
        }
      } else if (this.isEnd(item)) {
        return;
      }
    }
  }

  /** Yield what is stored behind the end, with or without a position. */
  rest(): AsyncGenerator<SessionEvent, void, undefined> {
    return this.stored();
  }

  /** Yield what is stored behind the position. Events without a position are at the end of the last page. */
  private async *stored(): AsyncGenerator<SessionEvent, void, undefined> {
    let after = this.cursor;
    for (;;) {
      const page = await this.page(after);
      for (const { id: _, ...event } of page) {
        this.signal?.throwIfAborted();
        yield event;
      }
      const last = page.at(-1)?.feed_cursor;
      if (!last) {
        return;
      }
      after = last;
    }
  }

  private async page(after: string | undefined) {
    const { signal } = this;
    const query = { run_id: this.runId, after, limit: PAGE };
    try {
      return await insist(() => this.client.sessionEvents(this.sessionId, query, { signal }), signal);
    } catch (error) {
      if (error instanceof Refused && error.status === 400 && after !== undefined) {
        throw new HistoryLost(describe(error.detail));
      }
      throw error;
    }
  }

  private async hasEnded(): Promise<boolean> {
    const { runId, signal } = this;
    if (runId !== undefined) {
      return TERMINAL_STATUSES.has((await insist(() => this.client.run(runId, { signal }), signal)).status);
    }
    return QUIET.has((await insist(() => this.client.session(this.sessionId, { signal }), signal)).status);
  }

  private isEnd(item: FeedItem): boolean {
    switch (item.event) {
      case "session_deleted":
        return true;
      case "run_updated":
        return item.data.run.run_id === this.runId && TERMINAL_STATUSES.has(item.data.run.status);
      case "session_updated":
        return this.runId === undefined && QUIET.has(item.data.session.status);
      default:
        return false;
    }
  }
}
