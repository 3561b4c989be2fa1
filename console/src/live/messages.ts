/** Event of the feed, as the stream delivers it. */
export interface FeedEvent {
  id: string;
  type: string;
  data: unknown;
}

export type StreamState = "connecting" | "live" | "reconnecting" | "paused" | "signed-out";

/**
 * Messages of the stream's owner to all pages. After `joined` every later event arrives: snapshots from before that
 * cursor may lack some. It answers the request of one page; `since` is the position after which this owner has sent
 * everything, null when the history is incomplete.
 */
export type OwnerMessage =
  | { kind: "joined"; cursor: string | null; since?: string | null; to?: string; request?: number }
  | { kind: "events"; events: FeedEvent[] }
  | { kind: "state"; state: StreamState };

/** Kinds of events that the stream includes only while a page shows them: logs of sessions, acts of administrators. */
export type Extra = "event" | "audit";

/** Message of a page to the owner; repeated every few seconds while the page is visible. */
export interface Presence {
  from: string;
  request: number;
  visible: boolean;
  include: Extra[];
  leaving?: boolean;
}
