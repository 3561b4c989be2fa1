// A timer of more than 2^31 - 1 ms fires at once.
const LONGEST_TIMER_MILLISECONDS = 2 ** 31 - 1;

/** Signal of an operation, aborted with the caller's, when its time is up, and by `end`. */
export class Limit {
  private readonly controller = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;
  /** True if it was aborted because its time was up. */
  isLate = false;

  constructor(private readonly caller: AbortSignal | undefined) {
    caller?.throwIfAborted();
    caller?.addEventListener("abort", this.follow);
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Abort in so many seconds, instead of at the time set before. */
  expireIn(seconds: number): void {
    this.hold();
    const late = (): void => {
      this.isLate = true;
      this.controller.abort(new DOMException("The time is up", "TimeoutError"));
    };
    this.timer = setTimeout(late, Math.min(seconds * 1000, LONGEST_TIMER_MILLISECONDS));
  }

  /** Let no time expire. */
  hold(): void {
    clearTimeout(this.timer);
  }

  /** Abort what is still going on, such as an open connection, and let go of the caller's signal. */
  end(): void {
    this.hold();
    this.caller?.removeEventListener("abort", this.follow);
    this.controller.abort();
  }

  private readonly follow = (): void => this.controller.abort(this.caller?.reason);
}

/** Wait so many seconds. Rejects with the signal's reason when that is aborted. */
export function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(
      () => {
        signal?.removeEventListener("abort", abort);
        resolve();
      },
      Math.min(seconds * 1000, LONGEST_TIMER_MILLISECONDS),
    );
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** Return a time in seconds that only differences of mean something of. */
export function monotonic(): number {
  return performance.now() / 1000;
}
