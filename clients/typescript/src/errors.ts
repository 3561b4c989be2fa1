import type { components } from "./schema.js";

/** Body of every error answer. `detail`: a text, an object with a `message`, or for 422 a list of faults. */
export type Problem = components["schemas"]["Problem"];

/** Base class of all failed calls. */
export abstract class CallFailed extends Error {
  /** True if the same call may succeed later. */
  abstract readonly isTransient: boolean;

  constructor(
    message: string,
    /** Longest pause in seconds that an answer asked for; null when none did. */
    readonly retryAfter: number | null,
    /** `X-Request-Id` of the call, which log lines of the coordinator name; null if no request arrived. */
    readonly requestId: string | null,
  ) {
    super(requestId === null ? message : `${message} (request ${requestId})`);
  }
}

/** Error answer of the coordinator; 429 and every 5xx are transient. */
export class Refused extends CallFailed {
  override readonly name = "Refused";
  override readonly isTransient: boolean;
  readonly detail: Problem["detail"];

  constructor(
    readonly status: number,
    readonly problem: Problem,
    retryAfter: number | null = null,
    requestId: string | null = null,
  ) {
    super(`${status}: ${describe(problem.detail)}`, retryAfter, requestId);
    this.detail = problem.detail;
    this.isTransient = status === 429 || status >= 500;
  }
}

/** No address gave a coordinator's answer; the call may have taken effect all the same. */
export class Unreachable extends CallFailed {
  override readonly name = "Unreachable";
  override readonly isTransient: boolean;

  constructor(
    /** Reason of each address; also an answer of something in between, such as a proxy's 404. */
    readonly causes: Readonly<Record<string, string>>,
    retryAfter: number | null = null,
    requestId: string | null = null,
    /** True if one answer was 413: the same request will not come through, a smaller one may. */
    readonly isTooLarge = false,
  ) {
    const told = Object.entries(causes).map(([url, cause]) => `${url}: ${cause}`);
    super(told.join("; "), retryAfter, requestId);
    this.isTransient = !isTooLarge;
  }
}

/** Return `detail` of an error answer as one line of text. */
export function describe(detail: unknown): string {
  if (typeof detail === "string") {
    return detail;
  }
  if (Array.isArray(detail)) {
    return detail.map(describeItem).join("; ");
  }
  const { message, error, validation_errors } = (detail ?? {}) as Record<string, unknown>;
  if (typeof message === "string") {
    return [message, ...(Array.isArray(validation_errors) ? validation_errors.map(describeItem) : [])].join("; ");
  }
  return typeof error === "string" ? error : (JSON.stringify(detail) ?? "");
}

function describeItem(item: unknown): string {
  const { loc, msg, path, message } = (item ?? {}) as Record<string, unknown>;
  if (Array.isArray(loc)) {
    return `${loc.join(".")}: ${msg}`;
  }
  return path === undefined ? JSON.stringify(item) : `${path}: ${message}`;
}
