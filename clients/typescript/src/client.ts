import createClient, { type Client } from "openapi-fetch";
import { monotonic, sleep } from "./abort.js";
import { Backoff } from "./backoff.js";
import { CallFailed } from "./errors.js";
import { Feed, type FeedItem, type FeedOptions, type SessionEvent } from "./feed.js";
import { type FollowOptions, followEvents } from "./following.js";
import { newKey } from "./keys.js";
import { type CompletedRun, waitForCompletion } from "./outcomes.js";
import type { components, paths } from "./schema.js";
import { Transport } from "./transport.js";

type Schemas = components["schemas"];
type Query<Path extends keyof paths> = paths[Path] extends { get: { parameters: { query?: infer Given } } }
  ? NonNullable<Given>
  : never;

// Stands for the addresses: the transport puts one of them in its place.
const ORIGIN = "http://coordinator.invalid";
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

export interface ClientOptions {
  /** One address or several, such as `http://127.0.0.1:8765`; all must lead to the same coordinator. */
  url: string | readonly string[];
  /** Bearer token; needed while authentication is on. */
  token?: string | undefined;
  /** Time for which a failing call is repeated (10); 0: one try at each address. */
  patienceSeconds?: number | undefined;
  /** Time that each address has for its answer, besides the time that the request asks it to wait (40). */
  answerSeconds?: number | undefined;
  /** W3C trace context that submitted runs continue; default: `TRACEPARENT` of the environment, where there is one. */
  traceparent?: string | undefined;
  /** Used instead of the global one, such as one that goes through a proxy. */
  fetch?: typeof globalThis.fetch | undefined;
}

export interface CallOptions {
  /** Ends the call; it rejects with the signal's reason. The call may have taken effect. */
  signal?: AbortSignal | undefined;
}

/** Run to submit. A field that is left out has the coordinator's default; `type` is `start_session`. */
export type RunRequest = Omit<Schemas["SubmitRun"], "type" | "not_before"> & {
  type?: Schemas["RunType"];
  /** Earliest start: a time, or seconds from now. */
  not_before?: Date | string | number | null;
};
export type RunFilters = Omit<Query<"/runs">, "fields">;
export type SessionFilters = Query<"/sessions">;
export type EventFilters = Query<"/sessions/{session_id}/events">;

interface Sending extends CallOptions {
  /** Fields of which a success holds at least one. */
  expects?: readonly string[];
  /** Time that the request asks the coordinator to wait. */
  waitSeconds?: number | undefined;
  isOnce?: boolean;
}

/**
 * Client of one coordinator at one or several addresses.
 *
 * A call goes to the address that answered last, and to the others in turn when that one fails. While every address
 * refuses the connection, times out, answers 429 or 5xx, or another server answers in its place, the call is repeated
 * with growing pauses for `patienceSeconds`; then it throws `Unreachable` or `Refused`. Every other error answer of a
 * coordinator throws `Refused` at once. Repeating is harmless: submissions carry an idempotency key, and all other
 * calls below state a target state instead of a change.
 *
 * @example
 * const coordinator = new CoordinatorClient({ url: "http://127.0.0.1:8765" });
 * const { run_id } = await coordinator.submit({ parameters: { prompt: "hello" } });
 * const done = await coordinator.wait(run_id);
 */
export class CoordinatorClient {
  /**
   * Every call of the HTTP API, typed by its OpenAPI document, with the errors of those below. A POST or PATCH without
   * an `Idempotency-Key` is repeated only if it has not arrived.
   */
  readonly api: Client<paths>;
  private readonly transport: Transport;
  private readonly patience: number;
  private readonly answerSeconds: number;
  private readonly traceHeaders: Record<string, string>;

  constructor(options: ClientOptions) {
    this.transport = new Transport(options.url, options.token, options.fetch);
    this.patience = options.patienceSeconds ?? 10;
    this.answerSeconds = options.answerSeconds ?? 40;
    const trace = options.traceparent ?? inheritedTraceparent() ?? "";
    this.traceHeaders = TRACEPARENT.test(trace) ? { traceparent: trace } : {};
    this.api = createClient<paths>({
      baseUrl: ORIGIN,
      fetch: (request) =>
        this.send(request, { isOnce: ["POST", "PATCH"].includes(request.method) && !hasKey(request) }),
    });
  }

  /**
   * Submit a run. Calls with the same idempotency key and body create one run within 24 hours, and repeats return the
   * first answer; default: a new key for each call.
   */
  async submit(
    request: RunRequest,
    options: CallOptions & { idempotencyKey?: string } = {},
  ): Promise<Schemas["Submitted"]> {
    const headers = { "Idempotency-Key": options.idempotencyKey ?? newKey(), ...this.traceHeaders };
    const body = bodyOf(request);
    return dataOf(await this.api.POST("/runs", { body, headers, ...this.by(["run_id"], options) }));
  }

  /**
   * Submit up to 1,000 runs; return one item for each, in the same order. An invalid item fails alone: its `code` is
   * 4xx and its `detail` says why. `idempotencyKeys`: one for each request; default: new keys.
   */
  async submitBatch(
    requests: readonly RunRequest[],
    options: CallOptions & { idempotencyKeys?: readonly string[] } = {},
  ): Promise<Schemas["BatchItem"][]> {
    const keys = options.idempotencyKeys ?? requests.map(newKey);
    if (keys.length !== requests.length) {
      throw new TypeError(`${requests.length} requests need as many idempotency keys, not ${keys.length}`);
    }
    const runs = requests.map((request, at) => ({ ...bodyOf(request), idempotency_key: keys[at] as string }));
    const given = { body: { runs }, headers: this.traceHeaders, ...this.by(["results"], options) };
    return dataOf(await this.api.POST("/runs/batch", given)).results;
  }

  /** Return the run; with `waitSeconds` (at most 60) when it has ended or the time is up. */
  async run(runId: string, options: CallOptions & { waitSeconds?: number | undefined } = {}): Promise<Schemas["Run"]> {
    const params = { path: { run_id: runId }, query: { wait: options.waitSeconds } };
    return dataOf(await this.api.GET("/runs/{run_id}", { params, ...this.by(["run_id"], options) }));
  }

  /** Return one page of runs, newest first. Pass its `next_cursor` as `cursor` to get the next page. */
  async runs(filters: RunFilters = {}, options: CallOptions = {}): Promise<Schemas["RunPage"]> {
    const given = { params: { query: { cursor_in_body: true, ...filters } }, ...this.by(["runs"], options) };
    return dataOf(await this.api.GET("/runs", given)) as Schemas["RunPage"];
  }

  /** Return the newest result of the run. Throws Refused: 400 unless it is completed, 404 when none is kept. */
  async runResult(runId: string, options: CallOptions = {}): Promise<Schemas["Result"]> {
    const given = { params: { path: { run_id: runId } }, ...this.by(["result_text"], options) };
    return dataOf(await this.api.GET("/runs/{run_id}/result", given));
  }

  /**
   * Return the run with its result once it is completed. Goes on while no coordinator answers.
   *
   * Throws RunFailed, RunStopped, and WaitTimeout if the run has not ended after `seconds`.
   */
  wait(runId: string, options: CallOptions & { seconds?: number } = {}): Promise<CompletedRun> {
    return waitForCompletion(this, runId, options.seconds, options.signal);
  }

  /** Stop the run, and its session if this run is the session's active one; return the status it led to. */
  async stop(runId: string, options: CallOptions = {}): Promise<Schemas["Stopped"]> {
    const given = { params: { path: { run_id: runId } }, ...this.by(["session_id"], options) };
    return dataOf(await this.api.POST("/runs/{run_id}/stop", given));
  }

  /** Return one page of sessions, newest first. Pass its `next_cursor` as `cursor` to get the next page. */
  async sessions(filters: SessionFilters = {}, options: CallOptions = {}): Promise<Schemas["SessionPage"]> {
    const given = { params: { query: { cursor_in_body: true, ...filters } }, ...this.by(["sessions"], options) };
    return dataOf(await this.api.GET("/sessions", given));
  }

  async session(sessionId: string, options: CallOptions = {}): Promise<Schemas["Session"]> {
    const given = { params: { path: { session_id: sessionId } }, ...this.by(["session"], options) };
    return dataOf(await this.api.GET("/sessions/{session_id}", given)).session;
  }

  /** Return events of the session in the order of the feed. */
  async sessionEvents(
    sessionId: string,
    filters: EventFilters = {},
    options: CallOptions = {},
  ): Promise<Schemas["Event"][]> {
    const params = { path: { session_id: sessionId }, query: filters };
    const given = { params, ...this.by(["events"], options) };
    return dataOf(await this.api.GET("/sessions/{session_id}/events", given)).events;
  }

  /** Stop all runs of the session and its live process; return the status it led to. */
  async stopSession(sessionId: string, options: CallOptions = {}): Promise<Schemas["Stopped"]> {
    const given = { params: { path: { session_id: sessionId } }, ...this.by(["session_id"], options) };
    return dataOf(await this.api.POST("/sessions/{session_id}/stop", given));
  }

  /**
   * Iterate over the events of a run, or of a session, from its first one until its end. Each comes once, in the order
   * of the feed, over restarts of the coordinator. A session ends when none of its runs is unfinished.
   *
   * Throws Refused 404 for an unknown run or session, and HistoryLost when events behind `after` are no longer kept.
   *
   * @example
   * for await (const event of coordinator.follow(run_id)) {
   *   console.log(event.event_type, textOf(event));
   * }
   */
  follow(
    followed: string | { sessionId: string },
    options: FollowOptions = {},
  ): AsyncGenerator<SessionEvent, void, undefined> {
    return followEvents(this, followed, options);
  }

  /**
   * Iterate over events from now on, or after a cursor, without an end. Each item comes once, in the same order for
   * every reader. A connection that breaks, is silent for 40 s or is ended by the coordinator is replaced at the next
   * address, and reading goes on behind the last item. A cursor that cannot be resumed gives a `reset` and an `init`
   * item instead of a gap. Leaving the loop closes the connection; so does the signal.
   *
   * Throws Refused for an error answer that will not pass, such as 403, and Unreachable after `patienceSeconds`.
   *
   * @example
   * for await (const item of coordinator.feed({ types: ["run_updated"] })) {
   *   console.log(item.id, item.event);
   * }
   */
  feed(options: FeedOptions = {}): AsyncGenerator<FeedItem, void, undefined> {
    return new Feed(this.transport, options).items();
  }

  private by(expects: readonly string[], options: Sending) {
    return { fetch: (request: Request) => this.send(request, { ...options, expects }) };
  }

  /** Send with growing pauses until `patienceSeconds` are over or the failure cannot pass. */
  private async send(request: Request, sending: Sending): Promise<Response> {
    const { signal = request.signal, waitSeconds = 0, expects = [], isOnce = false } = sending;
    const { method, headers } = request;
    const path = request.url.slice(ORIGIN.length);
    const body = (await request.text()) || undefined;
    const seconds = this.answerSeconds + waitSeconds;
    const deadline = monotonic() + this.patience;
    const backoff = new Backoff();
    for (;;) {
      let pause: number;
      try {
        return await this.transport.call({ method, path, headers, body, seconds, expects, isOnce, signal });
      } catch (error) {
        if (!(error instanceof CallFailed && error.isTransient) || (isOnce && error.requestId !== null)) {
          throw error;
        }
        pause = backoff.pause(error.retryAfter);
        if (monotonic() + pause > deadline) {
          throw error;
        }
      }
      await sleep(pause, signal);
    }
  }
}

function hasKey(request: Request): boolean {
  return request.headers.has("Idempotency-Key");
}

/** Return what a call answered; errors of it were thrown. */
function dataOf<Data>(answer: { data?: Data }): Data {
  return answer.data as Data;
}

function bodyOf({ type = "start_session", not_before, ...rest }: RunRequest): Schemas["SubmitRun"] {
  const earliest = not_before instanceof Date ? not_before.toISOString() : not_before;
  return earliest === undefined ? { type, ...rest } : { type, ...rest, not_before: earliest };
}

/** Return the trace of the job that started this program, as the runner passes it on. */
function inheritedTraceparent(): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.TRACEPARENT;
}
