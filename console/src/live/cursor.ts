export interface Cursor {
  epoch: string;
  position: number;
}

/** Return the parts of `v1.<epoch>.<position>`, of one that owes a snapshot too; null for any other text. */
export function parseCursor(text: string): Cursor | null {
  const found = /^v1\.([^.~]+)(?:~init)?\.(\d+)$/.exec(text);
  return found ? { epoch: found[1] ?? "", position: Number(found[2]) } : null;
}

/** Return whether a change at `id` is later than a snapshot at `cursor`. A change of another history always is. */
export function isAfter(id: string, cursor: string): boolean {
  return isLater(parseCursor(id), parseCursor(cursor));
}

export function isLater(change: Cursor | null, snapshot: Cursor | null): boolean {
  if (!change || !snapshot || change.epoch !== snapshot.epoch) {
    return true;
  }
  return change.position > snapshot.position;
}
