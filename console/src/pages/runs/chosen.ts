import type { RunSummary } from "../../api/client";

/** Rows that are chosen, by id: they stay chosen while rows come, change and go. */
export interface Chosen {
  ids: ReadonlySet<string>;
  /** Row that was chosen last, from which a range goes. */
  anchor: string | null;
  /** Row that the keys are at. */
  current: string | null;
}

export const NONE: Chosen = { ids: new Set(), anchor: null, current: null };

type Rows = readonly RunSummary[];

export function toggle(chosen: Chosen, id: string): Chosen {
  const ids = new Set(chosen.ids);
  if (!ids.delete(id)) {
    ids.add(id);
  }
  return { ids, anchor: id, current: id };
}

/** Give all rows from the anchor to this one the state that this one would get. */
export function toggleRange(chosen: Chosen, rows: Rows, id: string): Chosen {
  const to = rows.findIndex((run) => run.run_id === id);
  const from = chosen.anchor === null ? -1 : rows.findIndex((run) => run.run_id === chosen.anchor);
  if (from < 0 || to < 0) {
    return toggle(chosen, id);
  }
  const ids = new Set(chosen.ids);
  const isChosen = !ids.has(id);
  for (const run of rows.slice(Math.min(from, to), Math.max(from, to) + 1)) {
    if (isChosen) {
      ids.add(run.run_id);
    } else {
      ids.delete(run.run_id);
    }
  }
  return { ids, anchor: id, current: id };
}

export function chooseAll(chosen: Chosen, rows: Rows): Chosen {
  return { ...chosen, ids: new Set([...chosen.ids, ...rows.map((run) => run.run_id)]) };
}

export function chooseNone(chosen: Chosen): Chosen {
  return { ...chosen, ids: new Set(), anchor: null };
}

/** Move the keys' row by so many; from nowhere to the row `start`. */
export function move(chosen: Chosen, rows: Rows, by: number, start: number): Chosen {
  const at = chosen.current === null ? -1 : rows.findIndex((run) => run.run_id === chosen.current);
  const next = at < 0 ? Math.min(start, rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1);
  return { ...chosen, current: rows[next]?.run_id ?? null };
}

export interface Tally {
  shown: number;
  unfinished: number;
  ended: number;
}

/** Count the chosen rows that are shown by whether they have ended. */
export function tally(chosen: Chosen, rows: Rows): Tally {
  const found = { shown: 0, unfinished: 0, ended: 0 };
  if (chosen.ids.size > 0) {
    for (const run of rows) {
      if (chosen.ids.has(run.run_id)) {
        found.shown += 1;
        found[run.completed_at === null && !ENDED.has(run.status) ? "unfinished" : "ended"] += 1;
      }
    }
  }
  return found;
}

const ENDED: ReadonlySet<string> = new Set(["completed", "failed", "stopped"]);
