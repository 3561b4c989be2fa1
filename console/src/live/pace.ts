import { useEffect } from "react";
import { queryClient } from "../api/queries";
import { feed } from "./feed";

/** Runs an action soon after it was asked for, at most once in so many milliseconds, and never while paused. */
export class Pace {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = Number.NEGATIVE_INFINITY;
  private isAsked = false;
  private isPaused = false;

  constructor(
    private readonly action: () => void,
    private readonly milliseconds: number,
  ) {}

  ask(): void {
    this.isAsked = true;
    if (!this.isPaused) {
      this.timer ??= setTimeout(() => this.act(), Math.max(0, this.last + this.milliseconds - Date.now()));
    }
  }

  pause(isPaused: boolean): void {
    this.isPaused = isPaused;
    if (isPaused) {
      this.stop();
    } else if (this.isAsked) {
      this.ask();
    }
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private act(): void {
    this.timer = undefined;
    this.isAsked = false;
    this.last = Date.now();
    this.action();
  }
}

const OVERVIEW_MILLISECONDS = 2000;

/** Read the figures of the overview again after changes of runs and runners; while hidden, once it is shown again. */
export function useOverviewPace(): void {
  useEffect(() => {
    const read = () => queryClient.invalidateQueries({ queryKey: ["overview"] }, { cancelRefetch: false });
    const pace = new Pace(() => void read(), OVERVIEW_MILLISECONDS);
    const follow = () => pace.pause(document.visibilityState !== "visible");
    follow();
    document.addEventListener("visibilitychange", follow);
    const unsubscribe = feed.subscribe((events) => {
      if (events.some(({ type }) => type === "run_updated" || type.startsWith("runner_"))) {
        pace.ask();
      }
    });
    return () => {
      pace.stop();
      document.removeEventListener("visibilitychange", follow);
      unsubscribe();
    };
  }, []);
}
