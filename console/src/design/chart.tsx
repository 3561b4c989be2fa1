import "uplot/dist/uPlot.min.css";
import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import type { Values } from "../format/series";
import { formatFull, type Zone } from "../format/times";
import styles from "./chart.module.css";
import { useMedia } from "./media";
import { useTheme, useZone } from "./preferences";

export type Tone = "active" | "good" | "bad" | "quiet" | "pending";

export interface Line {
  name: string;
  tone: Tone;
  values: Values;
  /** Text for the whole window, shown while the pointer is elsewhere. */
  summary: string;
}

interface Drawn {
  title: string;
  periods: number[];
  lines: Line[];
  format: (value: number) => string;
  /** Say that there is nothing to draw. */
  empty: string;
}

/** Draw lines over time. Their figures stand above as text: those of the window, or of the time under the pointer. */
export function Chart({ title, periods, lines, format, empty }: Drawn) {
  const [at, setAt] = useState<number | null>(null);
  const zone = useZone();
  const isEmpty = lines.every((line) => line.values.every((value) => !value));
  const period = at === null ? undefined : periods[at];
  return (
    <figure className={styles.chart} aria-label={title}>
      <figcaption>
        <b>{title}</b>
        {lines.map((line) => {
          const value = at === null ? null : (line.values[at] ?? null);
          return (
            <span key={line.name} data-line={line.name} className={styles[line.tone]}>
              {line.name} <b>{period === undefined ? line.summary : value === null ? "–" : format(value)}</b>
            </span>
          );
        })}
        {period !== undefined && <span>{clock(period, zone)}</span>}
      </figcaption>
      {isEmpty ? (
        <p className={styles.none}>{empty}</p>
      ) : (
        <Canvas periods={periods} lines={lines} format={format} zone={zone} onPoint={setAt} />
      )}
    </figure>
  );
}

interface Canvas extends Pick<Drawn, "periods" | "lines" | "format"> {
  zone: Zone;
  onPoint: (place: number | null) => void;
}

function Canvas({ periods, lines, format, zone, onPoint }: Canvas) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const theme = useTheme();
  const isDark = useMedia("(prefers-color-scheme: dark)");
  const drawn = useRef({ periods, lines });
  drawn.current = { periods, lines };
  const look = `${theme} ${isDark} ${lines.map((line) => `${line.name}:${line.tone}`)}`;
  useEffect(() => {
    const element = box.current;
    if (!element || !look) {
      return;
    }
    const options = optionsOf(element, drawn.current.lines, format, zone, onPoint);
    const made = new uPlot(options, dataOf(drawn.current), element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current = null;
      made.destroy();
    };
  }, [look, format, zone, onPoint]);
  useEffect(() => plot.current?.setData(dataOf({ periods, lines })), [periods, lines]);
  return <div ref={box} className={styles.canvas} aria-hidden="true" />;
}

const HEIGHT = 170;

function dataOf({ periods, lines }: Pick<Drawn, "periods" | "lines">): uPlot.AlignedData {
  return [periods, ...lines.map((line) => line.values)];
}

function optionsOf(
  element: HTMLElement,
  lines: Line[],
  format: Drawn["format"],
  zone: Zone,
  onPoint: Canvas["onPoint"],
): uPlot.Options {
  const axis = {
    stroke: resolved(element, "--faint"),
    grid: { stroke: resolved(element, "--line"), width: 1 },
    ticks: { stroke: resolved(element, "--line"), width: 1 },
  };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 22, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    tzDate: (at) => (zone === "local" ? new Date(at * 1000) : uPlot.tzDate(new Date(at * 1000), zone)),
    scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1e-3)] } },
    axes: [
      { ...axis, size: 30, values: (_, ticks) => ticks.map((tick) => clock(tick, zone)) },
      { ...axis, size: 62, values: (_, ticks) => ticks.map(format) },
    ],
    series: [
      {},
      ...lines.map((line) => ({
        label: line.name,
        stroke: resolved(element, `--${line.tone}`),
        width: 1.5,
        // A period between two without any value would not be seen as a line.
        points: { show: line.values.includes(null), size: 4 },
      })),
    ],
    hooks: { setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)] },
  };
}

function clock(period: number, zone: Zone): string {
  return formatFull(new Date(period * 1000).toISOString(), zone).slice(11, 16);
}

/** Return a colour of the style sheet as the canvas understands it. */
function resolved(element: HTMLElement, variable: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(${variable})`;
  element.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
