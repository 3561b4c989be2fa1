import Anser from "anser";

/** Text with the classes of its colours and decorations (log.module.css), or a colour that no class has. */
export interface Span {
  text: string;
  classes: string[];
  colour?: string | undefined;
  background?: string | undefined;
}

// Sequences that move the cursor or set a title mean nothing in a log; anser knows colours only.
const ESCAPE = "\u001b";
const BELL = "\u0007";
const OTHER_SEQUENCES = new RegExp(
  `${ESCAPE}(?:\\[[0-9;?]*[A-LN-Za-ln-z]|\\][^${BELL}${ESCAPE}]*(?:${BELL}|${ESCAPE}\\\\)|[()][0-9A-Za-z]|[=>78])`,
  "g",
);
const COLOURS = new RegExp(`${ESCAPE}\\[([0-9;]*)m`, "g");

/** Return the parts of a line that a terminal would show in one colour. */
export function spansOf(line: string): Span[] {
  if (!line.includes(ESCAPE)) {
    return [{ text: line, classes: [] }];
  }
  const parts = Anser.ansiToJson(line.replace(OTHER_SEQUENCES, ""), { use_classes: true, remove_empty: true });
  return parts.map((part) => ({
    text: part.content,
    classes: [part.fg, part.bg && `${part.bg}-background`, ...part.decorations.map((name) => `ansi-${name}`)].filter(
      Boolean,
    ),
    colour: colourOf(part.fg, part.fg_truecolor),
    background: colourOf(part.bg, part.bg_truecolor),
  }));
}

/** Return what a terminal shows of a line that writes over itself by carriage returns. */
export function lastWritten(line: string): string {
  const parts = line.split("\r").filter((part) => part !== "");
  return parts.at(-1) ?? "";
}

/** Return the text of a line without any sequence. */
export function plainText(line: string): string {
  const last = line.includes("\r") ? lastWritten(line) : line;
  return last.includes(ESCAPE) ? last.replace(OTHER_SEQUENCES, "").replace(COLOURS, "") : last;
}

/** Begin each line with the colours that the lines before it have left on, as a terminal shows them. */
export function carryColours(lines: string[]): string[] {
  let on = "";
  return lines.map((line) => {
    const begun = on + line;
    for (const [sequence, codes] of line.matchAll(COLOURS)) {
      on = /^0*$/.test(codes ?? "") ? "" : on + sequence;
    }
    return begun;
  });
}

const LEVELS = [0, 95, 135, 175, 215, 255];

/** Return a colour of the palette of 256, or one given by its parts, as CSS writes it; undefined for one with a class. */
function colourOf(name: string | null, parts: string | null): string | undefined {
  if (name === "ansi-truecolor" && parts) {
    return `rgb(${parts})`;
  }
  const place = Number(/^ansi-palette-(\d+)$/.exec(name ?? "")?.[1] ?? Number.NaN);
  if (Number.isNaN(place)) {
    return undefined;
  }
  if (place >= 232) {
    const level = 8 + (place - 232) * 10;
    return `rgb(${level}, ${level}, ${level})`;
  }
  const cube = place - 16;
  return `rgb(${[Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((step) => LEVELS[step] ?? 0).join(", ")})`;
}
