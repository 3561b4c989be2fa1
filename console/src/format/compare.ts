import { diffArrays } from "diff";
import { isFault, type Json, membersOf, pretty, readJson } from "./json";

/** Stretch of lines that both texts have, or only the first (`-`) or the second (`+`) has. */
export interface Stretch {
  sign: " " | "-" | "+";
  lines: string[];
}

// Texts that differ in more would take the browser seconds.
const MOST_MILLISECONDS = 1500;

/** Return how the second text differs from the first, line by line; null when that would take too long. */
export function compareLines(first: string, second: string): Stretch[] | null {
  const parts = diffArrays(splitLines(first), splitLines(second), { timeout: MOST_MILLISECONDS });
  return (
    parts?.map(({ added, removed, value }): Stretch => ({ sign: added ? "+" : removed ? "-" : " ", lines: value })) ??
    null
  );
}

export function splitLines(text: string): string[] {
  return text === "" ? [] : text.split("\n");
}

/** Return a member of an object as text to compare: members in the order of their names, text values as they are. */
export function comparableMember(object: string | null, name: string): string {
  const read = object === null ? null : readJson(object);
  const member = read === null || isFault(read) ? undefined : membersOf(read)?.get(name);
  return member ? comparable(member) : "";
}

function comparable(value: Json): string {
  if (value.root.type === "null") {
    return "";
  }
  return value.root.type === "string" ? String(value.root.value) : pretty(value, true);
}

const CONTEXT_LINES = 3;

/** Take out the middle of long equal stretches; `hidden` is the number of lines that are left out after a stretch. */
export function shortened(stretches: Stretch[]): (Stretch & { hidden: number })[] {
  return stretches.flatMap((stretch, place): (Stretch & { hidden: number })[] => {
    const before = place === 0 ? 0 : CONTEXT_LINES;
    const after = place === stretches.length - 1 ? 0 : CONTEXT_LINES;
    const hidden = stretch.lines.length - before - after;
    if (stretch.sign !== " " || hidden < 4) {
      return [{ ...stretch, hidden: 0 }];
    }
    return [
      { sign: " ", lines: stretch.lines.slice(0, before), hidden },
      { sign: " ", lines: after ? stretch.lines.slice(-after) : [], hidden: 0 },
    ];
  });
}
