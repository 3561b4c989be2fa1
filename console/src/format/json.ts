import { type Node, type ParseError, parseTree, printParseErrorCode } from "jsonc-parser";

/** JSON as a tree beside its text, in which every number and name stays as it was written. */
export interface Json {
  text: string;
  root: Node;
}

export interface JsonFault {
  offset: number;
  line: number;
  column: number;
  says: string;
}

const WORDS: Record<string, string> = {
  InvalidSymbol: 'this is no value: text needs quotes (")',
  InvalidNumberFormat: "this is no number of JSON",
  PropertyNameExpected: "a name in quotes is expected",
  ValueExpected: "a value is expected",
  ColonExpected: "a colon is expected",
  CommaExpected: "a comma is expected",
  CloseBraceExpected: "a closing brace } is expected",
  CloseBracketExpected: "a closing bracket ] is expected",
  EndOfFileExpected: "the text should end here",
  InvalidCommentToken: "comments are not allowed",
  UnexpectedEndOfComment: "comments are not allowed",
  UnexpectedEndOfString: 'this text has no closing quote (")',
  UnexpectedEndOfNumber: "this number has no end",
  InvalidUnicode: "\\u needs four hexadecimal digits",
  InvalidEscapeCharacter: "no escape begins like this: \\\\ is a backslash",
  InvalidCharacter: "this character has to be escaped, a line break as \\n",
};

/** Return JSON text as a tree, or its first fault with the place. */
export function readJson(text: string): Json | JsonFault {
  const errors: ParseError[] = [];
  let root: Node | undefined;
  try {
    root = parseTree(text, errors, { disallowComments: true, allowTrailingComma: false });
  } catch {
    return faultAt(text, 0, "values are nested too deeply");
  }
  const [error] = errors.sort((one, other) => one.offset - other.offset);
  if (error || root === undefined) {
    const says = error ? WORDS[printParseErrorCode(error.error)] : undefined;
    return faultAt(text, error?.offset ?? 0, says ?? "this is no JSON");
  }
  const twice = repeatedName(root);
  if (twice) {
    return faultAt(text, twice.offset, `the name ${JSON.stringify(twice.value)} stands twice in one object`);
  }
  try {
    JSON.parse(text);
  } catch (error) {
    return faultAt(text, 0, error instanceof Error ? error.message : "this is no JSON");
  }
  return { text, root };
}

export function isFault(read: Json | JsonFault): read is JsonFault {
  return "says" in read;
}

/** Return the members of an object by name; null for what is no object. */
export function membersOf({ text, root }: Json): Map<string, Json> | null {
  if (root.type !== "object") {
    return null;
  }
  const pairs = (root.children ?? []).map(({ children = [] }) => [children[0]?.value, children[1]] as const);
  return new Map(pairs.flatMap(([name, value]) => (value ? [[String(name), { text, root: value }] as const] : [])));
}

/** Return JSON text with two blanks per level; `sorted`: members in the order of their names. */
export function pretty({ text, root }: Json, sorted = false, indent = ""): string {
  const children = root.children ?? [];
  const deeper = `${indent}  `;
  if (root.type === "array") {
    const lines = children.map((child) => deeper + pretty({ text, root: child }, sorted, deeper));
    return lines.length ? `[\n${lines.join(",\n")}\n${indent}]` : "[]";
  }
  if (root.type === "object") {
    const named = sorted ? children.toSorted(byName) : children;
    const lines = named.map(({ children: [name, value] = [] }) =>
      name && value ? `${deeper}${rawOf(text, name)}: ${pretty({ text, root: value }, sorted, deeper)}` : "",
    );
    return lines.length ? `{\n${lines.join(",\n")}\n${indent}}` : "{}";
  }
  return rawOf(text, root);
}

/** Return the same text for equal values, whatever their blanks, escapes and order of members. */
export function canonical({ text, root }: Json): string {
  const children = root.children ?? [];
  if (root.type === "array") {
    return `[${children.map((child) => canonical({ text, root: child })).join()}]`;
  }
  if (root.type === "object") {
    const pairs = children
      .toSorted(byName)
      .map(({ children: [name, value] = [] }) =>
        name && value ? `${JSON.stringify(name.value)}:${canonical({ text, root: value })}` : "",
      );
    return `{${pairs.join()}}`;
  }
  return root.type === "string" ? JSON.stringify(root.value) : rawOf(text, root);
}

export function rawOf(text: string, { offset, length }: Node): string {
  return text.slice(offset, offset + length);
}

function byName(one: Node, other: Node): number {
  const [first, second] = [one, other].map(({ children }) => String(children?.[0]?.value));
  return (first ?? "") < (second ?? "") ? -1 : 1;
}

function repeatedName(node: Node): Node | null {
  const seen = new Set<string>();
  for (const child of node.children ?? []) {
    const name = node.type === "object" ? child.children?.[0] : undefined;
    if (name && seen.has(name.value)) {
      return name;
    }
    seen.add(name?.value);
    const deeper = repeatedName(child);
    if (deeper) {
      return deeper;
    }
  }
  return null;
}

function faultAt(text: string, offset: number, says: string): JsonFault {
  const before = text.slice(0, offset).split("\n");
  return { offset, line: before.length, column: (before.at(-1)?.length ?? 0) + 1, says };
}
