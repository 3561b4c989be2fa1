import { useRouter } from "@tanstack/react-router";
import { type RefObject, useEffect, useRef } from "react";
import type { RunSummary } from "../../api/client";
import { type Chosen, chooseAll, chooseNone, move, NONE, toggle, toggleRange } from "./chosen";

interface Keys {
  box: RefObject<HTMLElement | null>;
  runs: readonly RunSummary[];
  chosen: Chosen;
  choose: (change: (chosen: Chosen) => Chosen) => void;
  /** Whether the keys work wherever the focus is, not only within the list. */
  everywhere: boolean;
  /** Place of the first row in view. */
  first: () => number;
  show: (place: number) => void;
}

/** Act on the keys of a list: j, k and arrows move, x chooses, Enter opens, Escape chooses none. */
export function useListKeys(keys: Keys): void {
  const router = useRouter();
  const now = useRef(keys);
  now.current = keys;
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const { box, everywhere, runs, chosen } = now.current;
      const target = event.target as HTMLElement;
      const isWithin = box.current?.contains(target) ?? false;
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(target) || !(isWithin || everywhere)) {
        return;
      }
      if (event.key === "Enter" && chosen.current !== null && !target.closest("a, button")) {
        event.preventDefault();
        void router.navigate({ to: "/runs/$runId", params: { runId: chosen.current } });
        return;
      }
      const change = changeOf(event, runs, chosen, now.current.first(), isWithin);
      if (change) {
        event.preventDefault();
        now.current.choose(change);
        const { current } = change(chosen);
        const place = current === null ? -1 : runs.findIndex((run) => run.run_id === current);
        if (place >= 0 && current !== chosen.current) {
          now.current.show(place);
        }
      }
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [router]);
}

function changeOf(
  event: KeyboardEvent,
  runs: readonly RunSummary[],
  { current, ids }: Chosen,
  first: number,
  isWithin: boolean,
): ((chosen: Chosen) => Chosen) | null {
  const { key } = event;
  if (key === "j" || (key === "ArrowDown" && isWithin)) {
    return (chosen) => move(chosen, runs, 1, first);
  }
  if (key === "k" || (key === "ArrowUp" && isWithin)) {
    return (chosen) => move(chosen, runs, -1, first);
  }
  if (key === "x" && current !== null) {
    return (chosen) => toggle(chosen, current);
  }
  if (key === "X" && current !== null) {
    return (chosen) => toggleRange(chosen, runs, current);
  }
  if (key === "*") {
    return (chosen) => chooseAll(chosen, runs);
  }
  if (key === "Escape" && (ids.size > 0 || current !== null)) {
    return ids.size > 0 ? chooseNone : () => NONE;
  }
  return null;
}

function isTyping(target: HTMLElement): boolean {
  if (target instanceof HTMLInputElement && target.type === "checkbox") {
    return false;
  }
  return target.closest("input, textarea, select, [role=dialog], [role=alertdialog]") !== null;
}
