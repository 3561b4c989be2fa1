/** Answer of `GET /health/ready`, or what came instead of one: `status` 0 for none at all. */
export interface Asked {
  status: number;
  body: { status?: string; reason?: string } | null;
}

export interface HealthWords {
  /** Whether pages can neither read nor change anything meanwhile. */
  isAway: boolean;
  says: string;
  means: string;
}

// By the begin of a reason (docs/operations.md says what each failure does).
const MEANINGS: readonly [RegExp, string][] = [
  [/^Postgres/, "Nothing can be read or changed until it answers; runners go on with their runs."],
  [/^Redis/, "Nothing is lost: claims, stops and callbacks may take 2 s longer."],
  [/^no worker/, "Claims go on; expiry, callbacks and numbers of the history wait for a worker."],
];

/** Say in words what is wrong with the coordinator, and what that means; null while all is well. */
export function wordsOf({ status, body }: Asked): HealthWords | null {
  if (body === null) {
    return status === 0
      ? { isAway: true, says: "The coordinator does not answer", means: "The pages show what they read last." }
      : { isAway: true, says: `A proxy answers ${status} instead of the coordinator`, means: "Look at the proxy." };
  }
  const reason = body.reason ?? "";
  if (body.status === "ready" || body.status === "draining") {
    // A process that drains has a successor at the same address, or a balancer knows another.
    return null;
  }
  if (body.status === "starting") {
    return {
      isAway: true,
      says: `The coordinator is starting${reason ? `: ${reason}` : ""}`,
      means: "It serves once that is over.",
    };
  }
  const means = reason
    .split("; ")
    .flatMap((part) => MEANINGS.filter(([begin]) => begin.test(part)).map(([, text]) => text));
  return {
    isAway: reason.includes("Postgres does not answer"),
    says: reason || "Degraded",
    means: [...new Set(means)].join(" "),
  };
}
