import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { ToggleButton } from "react-aria-components";
import { curvesOf, WINDOWS, type Window } from "../../api/overview";
import { Chart, type Line, type Tone } from "../../design/chart";
import { chipClass, Notice, Section } from "../../design/parts";
import { lastOf, periodsOf, sumOf, type Values, valuesAt } from "../../format/series";
import { formatDuration } from "../../format/times";
import styles from "./overview.module.css";

const ENDS: readonly [string, Tone][] = [
  ["completed", "good"],
  ["failed", "bad"],
  ["stopped", "quiet"],
];
const WAITS: readonly [string, Tone, number][] = [
  ["p50", "active", 0],
  ["p95", "pending", 1],
];

export function Charts() {
  const [window, setWindow] = useState<Window>(WINDOWS[0]);
  return (
    <Section
      title="History"
      aside={
        <span className={styles.windows}>
          {WINDOWS.map((each) => (
            <ToggleButton
              key={each.name}
              className={chipClass}
              isSelected={each === window}
              onChange={() => setWindow(each)}
            >
              {each.name}
            </ToggleButton>
          ))}
        </span>
      }
    >
      <div className={styles.charts}>
        <Throughput window={window} />
        <Waits window={window} />
      </div>
    </Section>
  );
}

function Throughput({ window }: { window: Window }) {
  const submitted = useQuery(curvesOf("submitted", window)).data;
  const { data: ended, error } = useQuery(curvesOf("ended", window));
  const drawn = useMemo(() => {
    if (!submitted || !ended) {
      return null;
    }
    const periods = periodsOf(ended);
    const points = (status?: string) =>
      status === undefined
        ? submitted.series.flatMap((curve) => curve.points)
        : ended.series.filter((curve) => curve.labels.status === status).flatMap((curve) => curve.points);
    const counted = (name: string, tone: Tone, status?: string): Line => {
      const values = valuesAt(points(status), periods, 0, 0);
      return { name, tone, values, summary: formatCount(sumOf(values)) };
    };
    const ends = ENDS.map(([status, tone]) => counted(status, tone, status));
    return { periods, lines: [counted("submitted", "active"), ...ends] };
  }, [submitted, ended]);
  if (!drawn) {
    return error ? <Notice error={error} /> : <div className={styles.chart} />;
  }
  const title = `Runs per ${window.step === 60 ? "minute" : `${window.step / 60} minutes`}`;
  return <Chart title={title} {...drawn} format={formatCount} empty="No run was submitted or ended in this time." />;
}

function Waits({ window }: { window: Window }) {
  const { data: waits, error } = useQuery(curvesOf("wait", window));
  const drawn = useMemo(() => {
    if (!waits) {
      return null;
    }
    const periods = periodsOf(waits);
    const points = waits.series.flatMap((curve) => curve.points);
    const lines = WAITS.map(([name, tone, place]): Line => {
      const values: Values = valuesAt(points, periods, place, null);
      const last = lastOf(values);
      return { name, tone, values, summary: last === null ? "–" : formatDuration(last) };
    });
    return { periods, lines };
  }, [waits]);
  if (!drawn) {
    return error ? <Notice error={error} /> : <div className={styles.chart} />;
  }
  return (
    <Chart
      title="Wait from ready to claimed"
      {...drawn}
      format={formatDuration}
      empty="No run was claimed in this time."
    />
  );
}

function formatCount(value: number): string {
  return Number.isInteger(value) ? value.toLocaleString("en") : "";
}
