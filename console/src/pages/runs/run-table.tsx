import { useVirtualizer, type Virtualizer } from "@tanstack/react-virtual";
import { memo, type RefObject, useCallback, useEffect, useId, useRef } from "react";
import { Button } from "react-aria-components";
import type { RunSummary } from "../../api/client";
import type { RunFilters } from "../../api/filters";
import { useMedia } from "../../design/media";
import { Notice, quietClass } from "../../design/parts";
import { Time } from "../../design/time";
import { type Chosen, chooseAll, chooseNone, toggle, toggleRange } from "./chosen";
import { useListKeys } from "./keys";
import { RunRow } from "./run-row";
import styles from "./runs.module.css";
import type { More } from "./use-run-list";

const PHONE = "(max-width: 760px)";
const ROW_PIXELS = 38;
const PHONE_ROW_PIXELS = 66;
// The head covers so much above the rows.
const HEAD_PIXELS = 32;
// Read further rows when so few are left below those in view.
const ROWS_AHEAD = 60;

interface Shown {
  box: RefObject<HTMLDivElement | null>;
  runs: RunSummary[];
  filters: RunFilters;
  more: More;
  hasFresh: boolean;
  showFresh: () => void;
  chosen: Chosen;
  choose: (change: (chosen: Chosen) => Chosen) => void;
  /** Whether the list is the content of its page: its keys then work wherever the focus is. */
  isMain: boolean;
}

export function RunTable({ box, runs, filters, more, hasFresh, showFresh, chosen, choose, isMain }: Shown) {
  const currentId = useId();
  const virtual = useRows(box, runs.length);
  const rows = virtual.getVirtualItems();
  useReadingAhead(more, (rows.at(-1)?.index ?? 0) >= runs.length - ROWS_AHEAD, runs.length);
  useShowingWhenIdle(box, hasFresh && chosen.ids.size === 0 && chosen.current === null, showFresh);
  useListKeys({
    box,
    runs,
    chosen,
    choose,
    everywhere: isMain,
    first: () => Math.ceil((box.current?.scrollTop ?? 0) / (rows[0]?.size ?? ROW_PIXELS)),
    show: (place) => virtual.scrollToIndex(place),
  });
  const order = useRef(runs);
  order.current = runs;
  // The same function for all time: a new one would draw all rows again.
  const toggleRow = useCallback(
    (id: string, isRange: boolean) =>
      choose((now) => (isRange ? toggleRange(now, order.current, id) : toggle(now, id))),
    [choose],
  );
  const isCurrentShown = rows.some((row) => runs[row.index]?.run_id === chosen.current);
  return (
    <>
      <div
        ref={box}
        className={styles.box}
        role="grid"
        aria-label="Runs"
        aria-multiselectable
        aria-rowcount={runs.length + 1}
        aria-activedescendant={isCurrentShown ? currentId : undefined}
        tabIndex={0}
      >
        <Head runs={runs} chosen={chosen} choose={choose} />
        <div role="rowgroup" className={styles.body} style={{ height: virtual.getTotalSize() }}>
          {rows.map((row) => {
            const run = runs[row.index];
            return run ? (
              <RunRow
                key={run.run_id}
                run={run}
                index={row.index}
                top={row.start}
                isFaded={filters.status !== undefined && !filters.status.includes(run.status)}
                isChosen={chosen.ids.has(run.run_id)}
                currentId={run.run_id === chosen.current ? currentId : undefined}
                toggle={toggleRow}
              />
            ) : null;
          })}
        </div>
      </div>
      <Further more={more} />
    </>
  );
}

function useRows(box: RefObject<HTMLDivElement | null>, count: number): Virtualizer<HTMLDivElement, Element> {
  const pixels = useMedia(PHONE) ? PHONE_ROW_PIXELS : ROW_PIXELS;
  const estimateSize = useCallback(() => pixels, [pixels]);
  // Rows are named by their place here, since a function of names is called for all rows whenever the list changes.
  const getScrollElement = useCallback(() => box.current, [box]);
  const virtual = useVirtualizer({
    count,
    getScrollElement,
    estimateSize,
    overscan: 12,
    scrollPaddingEnd: HEAD_PIXELS,
  });
  // Measure rows again when their height changes.
  useEffect(() => (pixels > 0 ? virtual.measure() : undefined), [pixels, virtual]);
  return virtual;
}

/** Read the next rows before the last ones are in view; not past the bound of a search, nor after an error. */
function useReadingAhead(more: More, isNear: boolean, rows: number): void {
  const { exists, error, searchedUntil, load } = more;
  const wants = isNear && exists && error === null && searchedUntil === null;
  useEffect(() => {
    // Each time that rows were added.
    if (wants && rows >= 0) {
      load();
    }
  }, [wants, rows, load]);
}

const Head = memo(function Head({ runs, chosen, choose }: Pick<Shown, "runs" | "chosen" | "choose">) {
  const isAll = runs.length > 0 && chosen.ids.size >= runs.length && runs.every((run) => chosen.ids.has(run.run_id));
  const change = () => choose((now) => (isAll ? chooseNone(now) : chooseAll(now, runs)));
  return (
    <div role="rowgroup" className={styles.head}>
      <div role="row" className={styles.row} aria-rowindex={1}>
        <span role="columnheader" className={styles.choice}>
          <input
            type="checkbox"
            checked={isAll}
            ref={(input) => {
              if (input) {
                input.indeterminate = chosen.ids.size > 0 && !isAll;
              }
            }}
            onChange={change}
            aria-label={`Select the ${runs.length.toLocaleString("en")} loaded runs`}
          />
        </span>
        {["Status", "Run", "Agent, labels", "Session", "Runner", "Created", "Took", "Prompt or error"].map((name) => (
          <span role="columnheader" key={name}>
            {name}
          </span>
        ))}
      </div>
    </div>
  );
});

/** Say how far a bounded search has come, or why the next rows could not be read. */
function Further({ more }: { more: More }) {
  if (!more.exists || (more.searchedUntil === null && more.error === null)) {
    return null;
  }
  return (
    <div className={styles.further}>
      {more.error !== null ? (
        <Notice error={more.error} />
      ) : (
        <span>
          Searched back to <Time at={more.searchedUntil ?? ""} />.
        </span>
      )}
      <Button className={quietClass} onPress={more.load}>
        {more.error !== null ? "Try again" : "Search further"}
      </Button>
    </div>
  );
}

/** Show new rows by themselves only at the top of the list and while no pointer or focus is in it. */
function useShowingWhenIdle(box: RefObject<HTMLDivElement | null>, hasFresh: boolean, show: () => void): void {
  useEffect(() => {
    const element = box.current;
    const isInUse = element?.matches(":hover") || element?.contains(document.activeElement);
    if (hasFresh && element && element.scrollTop === 0 && !isInUse) {
      show();
    }
  }, [box, hasFresh, show]);
}
