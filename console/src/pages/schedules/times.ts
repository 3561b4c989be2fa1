import type { ScheduleSummary } from "../../api/schedules";

interface Spec {
  cron?: string[];
  every_seconds?: number | null;
  at?: string[];
}

/** Return the times of a schedule in short: its expressions, its interval, the number of single times. */
export function timesOf(schedule: Pick<ScheduleSummary, "spec">): string {
  const spec = schedule.spec as Spec;
  const parts = [...(spec.cron ?? [])];
  if (spec.every_seconds) {
    parts.push(`every ${spec.every_seconds} s`);
  }
  const single = spec.at?.length ?? 0;
  if (single > 0) {
    parts.push(`${single} single ${single === 1 ? "time" : "times"}`);
  }
  return parts.join("; ");
}
