import type { SessionEvent } from "../../api/client";
import { carryColours, plainText } from "../../format/ansi";
import { formatExact } from "../../format/exact";

export interface Line {
  key: number;
  at: string;
  type: string;
  text: string;
  /** What is searched and copied: without the sequences of a terminal. */
  plain: string;
  tone: "plain" | "error" | "stderr" | "quiet";
}

// A line beyond it would stall the browser.
const LONGEST_LINE = 20_000;

/** Return the lines of events; keys count up from `first`. */
export function linesOf(events: SessionEvent[], first = 0): Line[] {
  const lines: Line[] = [];
  for (const event of events) {
    const { text, tone } = textOf(event);
    for (const part of carryColours(text.replace(/\n$/, "").split("\n"))) {
      const whole =
        part.length > LONGEST_LINE ? `${part.slice(0, LONGEST_LINE)}… (${part.length} characters in this line)` : part;
      const at = String(event.timestamp ?? "");
      lines.push({ key: first + lines.length, at, type: event.event_type, text: whole, plain: plainText(whole), tone });
    }
  }
  return lines;
}

/** Return the places of the lines that hold the words, whatever their case. */
export function placesOf(lines: Line[], words: string): number[] {
  const wanted = words.toLowerCase();
  return lines.flatMap((line, place) => (`${line.type} ${line.plain}`.toLowerCase().includes(wanted) ? [place] : []));
}

export function isError({ tone }: Line): boolean {
  return tone === "error" || tone === "stderr";
}

/** Return what an event says, as text. */
export function textOf(event: SessionEvent): { text: string; tone: Line["tone"] } {
  if (isGiven(event.error)) {
    return { text: written(event.error), tone: "error" };
  }
  if (isGiven(event.content)) {
    // Runners send what a command writes to stdout as `assistant`, to stderr as `system`.
    if (event.role === "system") {
      return { text: contentOf(event.content), tone: "stderr" };
    }
    const role = isGiven(event.role) && event.role !== "assistant" ? `${written(event.role)}: ` : "";
    return { text: role + contentOf(event.content), tone: "plain" };
  }
  if (isGiven(event.tool_name)) {
    const shown = isGiven(event.tool_output) ? event.tool_output : event.tool_input;
    return { text: `${written(event.tool_name)} ${isGiven(shown) ? written(shown) : ""}`, tone: "plain" };
  }
  if (isGiven(event.result_text) || isGiven(event.result_data)) {
    return { text: written(isGiven(event.result_text) ? event.result_text : event.result_data), tone: "plain" };
  }
  const rest = [
    isGiven(event.reason) && written(event.reason),
    isGiven(event.exit_code) && `exit code ${written(event.exit_code)}`,
  ];
  return { text: rest.filter(Boolean).join(", "), tone: "quiet" };
}

function contentOf(content: unknown): string {
  if (
    Array.isArray(content) &&
    content.every((part) => typeof (part as { text?: unknown } | null)?.text === "string")
  ) {
    return content.map((part: { text: string }) => part.text).join("");
  }
  return written(content);
}

function written(value: unknown): string {
  return typeof value === "string" ? value : formatExact(value);
}

function isGiven(value: unknown): boolean {
  return value !== null && value !== undefined;
}
