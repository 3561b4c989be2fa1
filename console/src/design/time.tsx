import { useSyncExternalStore } from "react";
import { describeTime, formatDuration, formatTime, secondsBetween } from "../format/times";
import { useZone } from "./preferences";

let now = Date.now();
const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = Date.now();
    for (const each of listeners) {
      each();
    }
  }, 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** Return the time of this machine, once a second. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}

export function Time({ at }: { at: string }) {
  const zone = useZone();
  return (
    <time dateTime={at} title={describeTime(at, zone)}>
      {formatTime(at, zone)}
    </time>
  );
}

/** Show the time from `start` to `end`, or that until now, which goes on. */
export function Duration({ start, end }: { start: string; end: string | null }) {
  return end ? <span>{formatDuration(secondsBetween(start, end))}</span> : <Elapsed start={start} />;
}

function Elapsed({ start }: { start: string }) {
  return <span>{formatDuration(secondsBetween(start, Math.max(useNow(), Date.parse(start))))}</span>;
}
