import { useEffect, useSyncExternalStore } from "react";
import { isAfter, isLater, parseCursor } from "./cursor";
import type { Extra, FeedEvent, OwnerMessage, StreamState } from "./messages";
import { connect, type Send } from "./transport";

type Listener = (events: FeedEvent[]) => void;
type JoinListener = (cursor: string | null) => void;

const PRESENCE_MILLISECONDS = 10_000;
// Events kept for snapshots that are still on their way when the events arrive.
const MOST_KEPT = 5000;

/** This page's end of the browser's one stream. */
class Feed {
  private state: StreamState = "connecting";
  private readonly stateListeners = new Set<() => void>();
  private readonly listeners = new Set<Listener>();
  private readonly joinListeners = new Set<JoinListener>();
  private kept: FeedEvent[] = [];
  /** Position up to which this page has got everything. */
  private position: string | null = null;
  private readonly included = { event: 0, audit: 0 };
  private request = 1;
  private answered = 0;
  private waiting: (() => void)[] = [];
  private send: Send | null = null;
  private readonly name = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;

  start(): void {
    this.send = connect(
      (message) => this.receive(message),
      () => this.position,
    );
    document.addEventListener("visibilitychange", () => this.report());
    addEventListener("pagehide", () => this.report(true));
    // A page that comes back from the browser's cache may have missed messages.
    addEventListener("pageshow", (event) => {
      if (event.persisted) {
        this.position = null;
        this.join();
      }
    });
    setInterval(() => document.visibilityState === "visible" && this.report(), PRESENCE_MILLISECONDS);
    this.report();
  }

  /** Join anew, also after a sign-in: snapshots from before are read again. */
  join(): void {
    this.request += 1;
    this.report();
  }

  subscribe(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  onJoined(listener: JoinListener): () => void {
    this.joinListeners.add(listener);
    return () => this.joinListeners.delete(listener);
  }

  /** Have events of sessions (logs), or acts of administrators, included until the returned function is called. */
  include(kind: Extra): () => void {
    this.included[kind] += 1;
    if (this.included[kind] === 1) {
      this.join();
    }
    return () => {
      this.included[kind] -= 1;
      this.report();
    };
  }

  /** Wait until the stream delivers all that happens after a snapshot that is read from then on. */
  async joined(): Promise<void> {
    if (this.answered < this.request && this.state !== "signed-out") {
      await Promise.race([
        new Promise<void>((resolve) => this.waiting.push(resolve)),
        // Without a stream a page shows at least what is there.
        new Promise<void>((resolve) => setTimeout(resolve, 1500)),
      ]);
    }
  }

  /** Return the kept events later than a snapshot. */
  since(cursor: string): FeedEvent[] {
    const snapshot = parseCursor(cursor);
    let first = this.kept.length;
    while (first > 0 && isLater(parseCursor(this.kept[first - 1]?.id ?? ""), snapshot)) {
      first -= 1;
    }
    return this.kept.slice(first);
  }

  readonly currentState = (): StreamState => this.state;

  readonly subscribeState = (listener: () => void): (() => void) => {
    this.stateListeners.add(listener);
    return () => this.stateListeners.delete(listener);
  };

  private report(leaving = false): void {
    const visible = document.visibilityState === "visible";
    const include = (["event", "audit"] as const).filter((kind) => this.included[kind] > 0);
    this.send?.({ from: this.name, request: this.request, visible, include, leaving });
  }

  /** Pass on what is new: an owner that takes over may begin with events which the one before it has sent. */
  private deliver(events: FeedEvent[]): void {
    const { position } = this;
    const fresh = position === null ? events : events.filter((event) => isAfter(event.id, position));
    const last = fresh.at(-1);
    if (!last) {
      return;
    }
    this.position = last.id;
    this.kept.push(...fresh);
    if (this.kept.length > 2 * MOST_KEPT) {
      this.kept.splice(0, this.kept.length - MOST_KEPT);
    }
    for (const listener of this.listeners) {
      listener(fresh);
    }
    // Tell tools of the browser, and tests, what has been applied.
    dispatchEvent(new CustomEvent("coordinator:events", { detail: fresh }));
  }

  private receive(message: OwnerMessage): void {
    if (message.kind === "state") {
      this.state = message.state;
      for (const listener of this.stateListeners) {
        listener();
      }
    } else if (message.kind === "events") {
      this.deliver(message.events);
    } else if (message.to === this.name && message.request === this.request) {
      this.joinedAt(message.cursor, message.since ?? null);
    }
  }

  private joinedAt(cursor: string | null, since: string | null): void {
    // An owner that has sent all since this page's position leaves no gap: nothing has to be read again.
    const hasGap = cursor === null || since === null || this.position === null || isAfter(since, this.position);
    this.answered = this.request;
    if (hasGap) {
      this.position = cursor;
      for (const listener of this.joinListeners) {
        listener(cursor);
      }
    }
    for (const resolve of this.waiting.splice(0)) {
      resolve();
    }
  }
}

export const feed = new Feed();

export function useStreamState(): StreamState {
  return useSyncExternalStore(feed.subscribeState, feed.currentState);
}

export function useFeedEvents(listener: Listener): void {
  useEffect(() => feed.subscribe(listener), [listener]);
}
