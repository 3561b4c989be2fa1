import createClient from "openapi-fetch";
import { parseExact } from "../format/exact";
import { apiRoot } from "../location";
import type { components, paths } from "./schema";

export type Run = components["schemas"]["Run"];
export type RunSummary = components["schemas"]["RunSummary"];
// With `fields=summary` every page has its cursor in the body.
export type RunSummaryPage = components["schemas"]["RunSummaryPage"] & { feed_cursor: string };
export type Session = components["schemas"]["Session"];
export type SessionPage = components["schemas"]["SessionPage"];
export type Runner = components["schemas"]["Runner"];
export type Explanation = components["schemas"]["RunExplanation"] | components["schemas"]["RunnerExplanation"];
export type TreeNode = components["schemas"]["TreeNode"];
export type Me = components["schemas"]["Me"];
export type SessionEvent = components["schemas"]["Event"];
export type RunStatus = Run["status"];

// The header tells requests of this page from forged ones: no other site can send it.
export const CONSOLE_HEADERS = { "X-Coordinator-Console": "1" };

export const api = createClient<paths>({ baseUrl: apiRoot.replace(/\/$/, ""), headers: CONSOLE_HEADERS });

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly detail: unknown,
  ) {
    super(typeof detail === "string" ? detail : describeFaults(detail) || `The coordinator answered ${status}`);
  }
}

interface Answer<Data> {
  data?: Data;
  error?: unknown;
  response: Response;
}

/** Return the data of an answer. Throws ApiError for any other than 2xx. */
export function accepted<Data>(answer: Answer<Data>): Data {
  if (!answer.response.ok || answer.data === undefined) {
    const detail = (answer.error as { detail?: unknown } | undefined)?.detail;
    throw new ApiError(answer.response.status, detail);
  }
  return answer.data;
}

/** Read an answer whose JSON holds what users wrote, with each number as it was written. */
export async function readExact<Shape>(path: string, signal?: AbortSignal): Promise<Shape> {
  return parseExact(await readText(path, { signal: signal ?? null })) as Shape;
}

/** Send JSON text, in which each number stays as it is written, and return the answer. */
export async function sendText<Shape>(
  method: string,
  path: string,
  body?: string,
  headers: Record<string, string> = {},
): Promise<Shape> {
  const typed = body === undefined ? headers : { ...headers, "Content-Type": "application/json" };
  return parseExact(await readText(path, { method, body: body ?? null, headers: typed })) as Shape;
}

/** Return the text of an answer. Throws ApiError for any other than 2xx. */
export async function readText(path: string, { headers, ...init }: RequestInit = {}): Promise<string> {
  const response = await fetch(apiRoot + path, { ...init, headers: { ...CONSOLE_HEADERS, ...headers } });
  const text = await response.text();
  if (!response.ok) {
    let detail: unknown = text.slice(0, 300);
    try {
      detail = (JSON.parse(text) as { detail?: unknown }).detail;
    } catch {
      // A proxy answered, not the coordinator.
    }
    throw new ApiError(response.status, detail);
  }
  return text;
}

function describeFaults(detail: unknown): string {
  if (!Array.isArray(detail)) {
    const { message } = (detail ?? {}) as { message?: unknown };
    return typeof message === "string" ? message : "";
  }
  return detail
    .map((fault: { loc?: unknown[]; msg?: string }) => `${(fault.loc ?? []).join(".")}: ${fault.msg ?? ""}`)
    .join("; ");
}
