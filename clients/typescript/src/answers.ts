import type { Problem } from "./errors.js";
import { Refused, Unreachable } from "./errors.js";

// Only a coordinator's own answer counts. One with this header is its own. Without it (a coordinator of the previous
// release sends none) an error counts if it is JSON with a `detail` other than a web framework's own `Not Found`, and a
// success if it is JSON that holds an expected field.
const INSTANCE_HEADER = "Coordinator-Instance";
export const REQUEST_ID_HEADER = "X-Request-Id";

/** Answer of something in between, such as a proxy's 404 or login page. */
export class NotACoordinator extends Error {
  readonly status: number;
  readonly retryAfter: number | null;

  constructor(response: Response, text: string, why: string) {
    const words = wordsOf(text);
    super(`HTTP ${response.status}, ${why}${words ? `: ${words}` : ""}`);
    this.status = response.status;
    this.retryAfter = retryAfterOf(response);
  }
}

/**
 * Require the success of a coordinator that holds one of the expected fields, if any are named.
 * Throws Refused for a coordinator's error, else NotACoordinator.
 */
export function accept(response: Response, text: string, expects: readonly string[], requestId: string): void {
  const isNamed = response.headers.has(INSTANCE_HEADER);
  const foreign = (why = "not a coordinator's answer"): NotACoordinator => new NotACoordinator(response, text, why);
  if (response.status === 204 && isNamed) {
    return;
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    if (!isNamed || response.status < 400) {
      throw foreign();
    }
    content = { detail: text.slice(0, 200) };
  }
  if (response.ok) {
    if (expects.length > 0 && !expects.some((name) => isObject(content) && name in content)) {
      throw foreign(`an answer without \`${expects[0]}\``);
    }
    return;
  }
  const detail = isObject(content) ? content.detail : undefined;
  if (response.status < 400 || !(isNamed || (detail && detail !== "Not Found"))) {
    throw foreign();
  }
  const problem = (detail === undefined ? { detail: content } : content) as Problem;
  throw new Refused(response.status, problem, retryAfterOf(response), givenId(response) ?? requestId);
}

/** Return the error that says why no address answered. */
export function unreachable(
  causes: Record<string, string>,
  foreign: readonly NotACoordinator[],
  requestId: string | null,
): Unreachable {
  const pauses = foreign.flatMap(({ retryAfter }) => (retryAfter === null ? [] : [retryAfter]));
  const isTooLarge = foreign.some(({ status }) => status === 413);
  return new Unreachable(causes, pauses.length > 0 ? Math.max(...pauses) : null, requestId, isTooLarge);
}

/** Return the id that the answer names, which is the one in the coordinator's log. */
function givenId(response: Response): string | null {
  const given = response.headers.get(REQUEST_ID_HEADER) ?? "";
  return /^[A-Za-z0-9._-]{1,128}$/.test(given) ? given : null;
}

function retryAfterOf(response: Response): number | null {
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

function isObject(content: unknown): content is Record<string, unknown> {
  return typeof content === "object" && content !== null && !Array.isArray(content);
}

function wordsOf(text: string): string {
  const plain = text.slice(0, 4000).replace(/<(script|style)\b.*?<\/\1\s*>|<[^>]*>/gis, " ");
  return plain
    .replace(/[\p{C}\s]+/gu, " ")
    .trim()
    .slice(0, 100);
}
