import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, useEffect, useLayoutEffect, useRef } from "react";
import { useZone } from "../../design/preferences";
import { lastWritten, type Span, spansOf } from "../../format/ansi";
import { formatTime } from "../../format/times";
import type { Line } from "./lines";
import styles from "./log.module.css";

const LINE_PIXELS = 20;
// Keys that move towards the begin.
const UPWARDS = new Set(["ArrowUp", "PageUp", "Home"]);

interface Drawn {
  lines: Line[];
  follows: boolean;
  setFollows: (follows: boolean) => void;
  matches: ReadonlySet<number | undefined>;
  current: number | null;
}

/** Draw the lines that the box shows, of any number. */
export function Lines({ lines, follows, setFollows, matches, current }: Drawn) {
  const box = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: lines.length,
    getScrollElement: () => box.current,
    estimateSize: () => LINE_PIXELS,
    getItemKey: (index) => lines[index]?.key ?? index,
    overscan: 30,
  });
  const first = useRef(lines[0]?.key);
  useLayoutEffect(() => {
    // Lines that were put in front do not move the shown ones.
    const added = lines.findIndex((line) => line.key === first.current);
    const top = virtual.range?.startIndex;
    first.current = lines[0]?.key;
    if (added > 0 && top !== undefined && !follows) {
      virtual.scrollToIndex(top + added, { align: "start" });
    }
  }, [lines, virtual, follows]);
  useEffect(() => {
    if (follows && lines.length > 0) {
      virtual.scrollToIndex(lines.length - 1, { align: "end" });
    }
  }, [follows, lines.length, virtual]);
  const place = current === null ? -1 : lines.findIndex((line) => line.key === current);
  useEffect(() => {
    if (place >= 0) {
      virtual.scrollToIndex(place, { align: "center" });
    }
  }, [current]);
  const leave = () => setFollows(false);
  const scrolled = () => {
    const element = box.current;
    if (element && !follows && element.scrollHeight - element.scrollTop - element.clientHeight < 2) {
      setFollows(true);
    }
  };
  return (
    <div
      ref={box}
      className={styles.box}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard
      tabIndex={0}
      role="group"
      aria-label="Lines"
      onWheel={(event) => event.deltaY < 0 && leave()}
      onTouchMove={leave}
      onPointerDown={(event) => event.target === box.current && leave()}
      onKeyDown={(event: KeyboardEvent) => UPWARDS.has(event.key) && leave()}
      onScroll={scrolled}
    >
      <div className={styles.lines} style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map((row) => {
          const line = lines[row.index];
          return line ? (
            <div
              key={row.key}
              ref={virtual.measureElement}
              data-index={row.index}
              data-tone={line.tone}
              data-match={matches.has(line.key) || undefined}
              data-current={line.key === current || undefined}
              className={styles.line}
              style={{ transform: `translateY(${row.start}px)` }}
            >
              <Row line={line} />
            </div>
          ) : null;
        })}
      </div>
    </div>
  );
}

function Row({ line }: { line: Line }) {
  const zone = useZone();
  return (
    <>
      <span className={styles.at}>{line.at && formatTime(line.at, zone)}</span>
      <span className={styles.type}>{line.type}</span>
      <span className={styles.text}>
        <Coloured text={line.text} />
      </span>
    </>
  );
}

function Coloured({ text }: { text: string }) {
  let place = 0;
  return spansOf(lastWritten(text)).map((span) => {
    const key = place;
    place += span.text.length;
    return (
      <span key={key} className={span.classes.map((name) => styles[name] ?? "").join(" ")} style={styleOf(span)}>
        {span.text}
      </span>
    );
  });
}

/** Return colours that no class has, as light or dark as reading them on the page takes. */
function styleOf({ colour, background }: Span) {
  return {
    ...(colour && {
      color: `light-dark(oklch(from ${colour} min(l, 0.48) c h), oklch(from ${colour} max(l, 0.76) c h))`,
    }),
    ...(background && {
      background: `light-dark(oklch(from ${background} max(l, 0.9) c h), oklch(from ${background} min(l, 0.3) c h))`,
    }),
  };
}
