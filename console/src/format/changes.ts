import { canonical, isFault, type Json, type JsonFault, membersOf, pretty, rawOf, readJson } from "./json";

/** Fields of a submission that an editor offers, with the member of the run that holds each. */
const OFFERED: readonly [string, string][] = [
  ["parameters", "parameters"],
  ["agent_name", "agent_name"],
  ["project_dir", "project_dir"],
  ["additional_demands", "demands"],
  ["priority", "priority"],
  ["max_attempts", "max_attempts"],
  ["labels", "labels"],
  ["execution_mode", "execution_mode"],
  ["parent_session_id", "parent_session_id"],
];

export interface Changes {
  /** Names of the members that differ, in the order of the text. */
  names: string[];
  /** Object of these members as JSON text; those that were taken out are null. */
  text: string;
}

/** Return what of a run can be changed in a replay, as JSON text; `run` is its text as the API answered it. */
export function editableOf(run: string): string {
  const read = readJson(run);
  const members = isFault(read) ? null : membersOf(read);
  const lines = OFFERED.flatMap(([name, member]) => {
    const value = members?.get(member);
    const shown = value && member === "demands" ? withoutNulls(value) : value;
    return shown ? [`  ${JSON.stringify(name)}: ${pretty(shown, false, "  ")}`] : [];
  });
  return `{\n${lines.join(",\n")}\n}`;
}

/** Return the members of the edited text that differ from the original; a fault where it is no JSON object. */
export function changesOf(original: string, edited: string): Changes | JsonFault {
  const read = readJson(edited);
  if (isFault(read)) {
    return read;
  }
  const now = membersOf(read);
  if (now === null) {
    return {
      offset: read.root.offset,
      line: 1,
      column: 1,
      says: "an object { … } with the fields of a run is expected",
    };
  }
  const first = readJson(original);
  const before = (isFault(first) ? null : membersOf(first)) ?? new Map<string, Json>();
  const changed = [...now].filter(([name, value]) => {
    const known = before.get(name);
    return known === undefined || canonical(known) !== canonical(value);
  });
  const removed = [...before].filter(([name, value]) => !now.has(name) && value.root.type !== "null");
  const pairs = [
    ...changed.map(([name, value]) => [name, rawOf(value.text, value.root)]),
    ...removed.map(([name]) => [name, "null"]),
  ];
  return {
    names: pairs.map(([name]) => name ?? ""),
    text: `{${pairs.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join()}}`,
  };
}

function withoutNulls({ text, root }: Json): Json {
  const children = root.children?.filter(({ children: pair }) => pair?.[1]?.type !== "null");
  return { text, root: children ? { ...root, children } : root };
}
