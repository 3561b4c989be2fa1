import { Limit } from "./abort.js";
import { accept, NotACoordinator, REQUEST_ID_HEADER, unreachable } from "./answers.js";
import { CallFailed, Refused } from "./errors.js";
import { newKey } from "./keys.js";

/** Request to any of the addresses. */
export interface Call {
  method: string;
  /** Path with its query. */
  path: string;
  headers?: Headers;
  body?: string | undefined;
  /** Time that each address has to answer. */
  seconds: number;
  /** Fields of which a success holds at least one. */
  expects: readonly string[];
  /** It must not arrive twice: it is tried again only where it has not arrived. */
  isOnce: boolean;
  signal?: AbortSignal | undefined;
}

// Causes of failed fetches in Node: a kept-alive connection that the server had just closed looks like the first ones,
// so the same address gets one more try. With the others no request has arrived. Browsers name none.
const BROKEN = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);
const NOT_CONNECTED = new Set(["EAI_AGAIN", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND"]);
NOT_CONNECTED.add("UND_ERR_CONNECT_TIMEOUT");

/**
 * Sender of calls: first to the address that answered last, then to the others in turn. A call may therefore arrive
 * twice, unless it says that it must not.
 */
export class Transport {
  readonly urls: readonly string[];
  private readonly headers: Headers;
  private current = 0;

  constructor(
    urls: string | readonly string[],
    token: string | undefined,
    private readonly fetch: typeof globalThis.fetch = (input, init) => globalThis.fetch(input, init),
  ) {
    this.urls = (typeof urls === "string" ? [urls] : urls).map(checked);
    if (this.urls.length === 0) {
      throw new TypeError("at least one coordinator address is needed");
    }
    this.headers = new Headers(token ? { Authorization: `Bearer ${token}` } : {});
  }

  /** Place of the address that the next call tries first. */
  get start(): number {
    return this.current;
  }

  /**
   * Call each address once until one answers. Every try has the same `X-Request-Id`, which errors name. Throws Refused
   * for an error answer (a 5xx only when no other address did better), Unreachable when no address answered as a
   * coordinator does, and the signal's reason.
   */
  async call(call: Call): Promise<Response> {
    const headers = this.headersOf(call.headers);
    const requestId = headers.get(REQUEST_ID_HEADER) ?? "";
    const causes: Record<string, string> = {};
    const foreign: NotACoordinator[] = [];
    let serverError: Refused | undefined;
    let mayHaveArrived = false;
    const start = this.current;
    for (let offset = 0; offset < this.urls.length; offset += 1) {
      const at = (start + offset) % this.urls.length;
      const url = this.urls[at] as string;
      try {
        const answer = await this.send(url, call, headers);
        accept(answer.response, answer.text, call.expects, requestId);
        this.current = at;
        return copyOf(answer.response, answer.text);
      } catch (error) {
        call.signal?.throwIfAborted();
        if (error instanceof Refused) {
          if (error.status < 500 || call.isOnce) {
            this.current = at;
            throw error;
          }
          serverError = error;
          continue;
        }
        causes[url] = reasonOf(error);
        mayHaveArrived ||= !NOT_CONNECTED.has(codeOf(error));
        if (error instanceof NotACoordinator) {
          foreign.push(error);
        }
        if (call.isOnce && mayHaveArrived) {
          break;
        }
      }
    }
    throw serverError ?? unreachable(causes, foreign, mayHaveArrived ? requestId : null);
  }

  /**
   * Open the event stream of one address; `limit` bounds it and closes it. Throws Refused for an error answer,
   * Unreachable when there is no stream, and the reason of the caller's signal.
   */
  async open(url: string, path: string, headers: Headers, limit: Limit): Promise<ReadableStream<Uint8Array>> {
    const all = this.headersOf(headers);
    all.set("Accept", "text/event-stream");
    try {
      const response = await this.request(url + path, { headers: all, signal: limit.signal });
      const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
      if (response.status === 200 && isStream && response.body) {
        return response.body;
      }
      const text = await response.text();
      accept(response, text, [], all.get(REQUEST_ID_HEADER) ?? "");
      throw new NotACoordinator(response, text, "but no event stream");
    } catch (error) {
      throw this.failure(url, error, limit);
    }
  }

  /** Return what the failed request or stream of an address is to be reported as. */
  failure(url: string, error: unknown, limit: Limit): unknown {
    if (error instanceof CallFailed) {
      return error;
    }
    if (limit.signal.aborted && !limit.isLate) {
      return limit.signal.reason;
    }
    const cause = limit.isLate ? "no answer in time" : reasonOf(error);
    return unreachable({ [url]: cause }, error instanceof NotACoordinator ? [error] : [], null);
  }

  private async send(url: string, call: Call, headers: Headers): Promise<{ response: Response; text: string }> {
    for (let isRepeat = false; ; isRepeat = true) {
      const limit = new Limit(call.signal);
      limit.expireIn(call.seconds);
      try {
        const init: RequestInit = { method: call.method, headers, signal: limit.signal };
        const response = await this.request(
          url + call.path,
          call.body === undefined ? init : { ...init, body: call.body },
        );
        return { response, text: await response.text() };
      } catch (error) {
        if (limit.isLate) {
          throw new Error("no answer in time");
        }
        if (isRepeat || call.isOnce || !BROKEN.has(codeOf(error))) {
          throw error;
        }
      } finally {
        limit.end();
      }
    }
  }

  /** Follow no redirect: it leads to a login page, or the credential elsewhere. */
  private request(url: string, init: RequestInit): Promise<Response> {
    return this.fetch(url, { ...init, redirect: "manual", cache: "no-store" });
  }

  private headersOf(given: Headers | undefined): Headers {
    const headers = new Headers(given);
    for (const [name, value] of this.headers) {
      headers.set(name, value);
    }
    if (!headers.has(REQUEST_ID_HEADER)) {
      headers.set(REQUEST_ID_HEADER, newKey().slice(0, 16));
    }
    return headers;
  }
}

/** Return the answer as one that was not read yet, without the headers that describe the bytes on the wire. */
function copyOf(response: Response, text: string): Response {
  const headers = new Headers(response.headers);
  headers.delete("Content-Encoding");
  headers.delete("Content-Length");
  return new Response(response.status === 204 ? null : text, { status: response.status, headers });
}

function checked(url: string): string {
  const parts = URL.canParse(url) ? new URL(url) : undefined;
  if (!parts || !["http:", "https:"].includes(parts.protocol)) {
    throw new TypeError(`not an address of a coordinator: ${JSON.stringify(url)} (like http://127.0.0.1:8765)`);
  }
  return url.replace(/\/+$/, "");
}

function codeOf(error: unknown): string {
  const { cause, code } = (error ?? {}) as { cause?: { code?: unknown }; code?: unknown };
  return String(cause?.code ?? code ?? "");
}

function reasonOf(error: unknown): string {
  const { cause, message } = (error ?? {}) as { cause?: { message?: unknown }; message?: unknown };
  return String(cause?.message || codeOf(error) || message || error);
}
