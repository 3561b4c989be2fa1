import type { components } from "./schema.js";

export {
  type CallOptions,
  type ClientOptions,
  CoordinatorClient,
  type EventFilters,
  type RunFilters,
  type RunRequest,
  type SessionFilters,
} from "./client.js";
export { CallFailed, type Problem, Refused, Unreachable } from "./errors.js";
export type { FeedData, FeedItem, FeedOptions, RunUpdate, SessionEvent } from "./feed.js";
export { type FollowOptions, HistoryLost } from "./following.js";
export { linesOf, textOf } from "./messages.js";
export { type CompletedRun, RunFailed, RunNotCompleted, RunStopped, WaitTimeout } from "./outcomes.js";
export type { components, paths } from "./schema.js";

/** Types of the HTTP API by their names in its OpenAPI document, such as `Schemas["Run"]`. */
export type Schemas = components["schemas"];
