import { Limit, monotonic, sleep } from "./abort.js";
import { Backoff } from "./backoff.js";
import type { CoordinatorClient } from "./client.js";
import { CallFailed, Refused } from "./errors.js";
import type { components } from "./schema.js";

type Run = components["schemas"]["Run"];
type Result = components["schemas"]["Result"];

export const TERMINAL_STATUSES: ReadonlySet<string> = new Set(["completed", "failed", "stopped"]);
// Longest time for which one request of `wait` is held.
const HELD_SECONDS = 30;
// Time that a call under way has beyond the time of `wait`.
const SPARE_SECONDS = 2;

/** Run that is completed, with its newest result; null when no result of it is kept. */
export interface CompletedRun {
  run: Run;
  result: Result | null;
  /** Text of the result; null without one. */
  text: unknown;
  /** JSON value of the result; null without one. */
  data: unknown;
}

/** Base class of the ends of a run other than `completed`. */
export abstract class RunNotCompleted extends Error {
  /** Reason; empty when there is none. */
  readonly error: string;

  constructor(readonly run: Run) {
    super(`${run.run_id} ${run.status}${run.error ? `: ${run.error}` : ""}`);
    this.error = run.error ?? "";
  }
}

export class RunFailed extends RunNotCompleted {
  override readonly name = "RunFailed";
}

export class RunStopped extends RunNotCompleted {
  override readonly name = "RunStopped";
}

/** The run did not end in time; it goes on. */
export class WaitTimeout extends Error {
  override readonly name = "WaitTimeout";

  constructor(
    readonly runId: string,
    readonly seconds: number,
    options?: ErrorOptions,
  ) {
    super(`${runId} has not ended within ${seconds} s`, options);
  }
}

export async function waitForCompletion(
  client: CoordinatorClient,
  runId: string,
  seconds: number | undefined,
  signal: AbortSignal | undefined,
): Promise<CompletedRun> {
  if (seconds === undefined) {
    return completion(client, runId, undefined, signal);
  }
  // A client without an answer goes on for its own `patienceSeconds`.
  const limit = new Limit(signal);
  limit.expireIn(seconds + SPARE_SECONDS);
  try {
    return await completion(client, runId, seconds, limit.signal);
  } catch (error) {
    throw limit.isLate && error === limit.signal.reason ? new WaitTimeout(runId, seconds) : error;
  } finally {
    limit.end();
  }
}

async function completion(
  client: CoordinatorClient,
  runId: string,
  seconds: number | undefined,
  signal: AbortSignal | undefined,
): Promise<CompletedRun> {
  const deadline = seconds === undefined ? Number.POSITIVE_INFINITY : monotonic() + seconds;
  for (;;) {
    const left = Math.max(0, Math.min(HELD_SECONDS, deadline - monotonic()));
    const run = await insist(() => client.run(runId, { waitSeconds: left, signal }), signal, deadline).catch(
      (error) => {
        const isLate = seconds !== undefined && error instanceof CallFailed && error.isTransient;
        throw isLate ? new WaitTimeout(runId, seconds, { cause: error }) : error;
      },
    );
    if (TERMINAL_STATUSES.has(run.status)) {
      return outcome(client, run, signal);
    }
    if (seconds !== undefined && left === 0) {
      throw new WaitTimeout(runId, seconds);
    }
  }
}

/** Repeat the call while it fails for a reason that may pass, until the deadline; return its answer. */
export async function insist<Answer>(
  call: () => Promise<Answer>,
  signal: AbortSignal | undefined,
  deadline = Number.POSITIVE_INFINITY,
): Promise<Answer> {
  const backoff = new Backoff();
  for (;;) {
    let pause: number;
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof CallFailed && error.isTransient)) {
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

async function outcome(client: CoordinatorClient, run: Run, signal: AbortSignal | undefined): Promise<CompletedRun> {
  if (run.status === "failed") {
    throw new RunFailed(run);
  }
  if (run.status === "stopped") {
    throw new RunStopped(run);
  }
  const result = await insist(() => client.runResult(run.run_id, { signal }), signal).catch((error) => {
    if (error instanceof Refused && error.status === 404) {
      return null;
    }
    throw error;
  });
  return { run, result, text: result?.result_text ?? null, data: result?.result_data ?? null };
}
