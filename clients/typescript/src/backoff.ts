/** Growing random pauses in seconds, so that a thousand clients do not return in the same instant. */
export class Backoff {
  private tries = 0;

  constructor(
    private readonly first = 0.2,
    private readonly longest = 5,
  ) {}

  /** Return the next pause: a random half to whole of `first`, doubled on each call up to `longest`, `atLeast` or more. */
  pause(atLeast: number | null = null): number {
    const whole = Math.min(this.longest, this.first * 2 ** Math.min(this.tries, 30));
    this.tries += 1;
    return Math.max(whole * (0.5 + Math.random() / 2), atLeast ?? 0);
  }

  reset(): void {
    this.tries = 0;
  }
}
