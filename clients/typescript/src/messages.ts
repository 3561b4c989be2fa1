import type { SessionEvent } from "./feed.js";

type Message = Pick<SessionEvent, "event_type" | "role" | "content">;

/**
 * Yield the lines of all messages, each with its role, in the order in which they ended; unfinished ones last.
 *
 * A text with a `partial` block is continued by the next text of its role; a text that begins with a carriage return
 * replaces its line so far.
 */
export async function* linesOf(
  events: AsyncIterable<Message> | Iterable<Message>,
): AsyncGenerator<[role: string, line: string], void, undefined> {
  const unfinished = new Map<string, string>();
  for await (const event of events) {
    if (event.event_type !== "message") {
      continue;
    }
    const role = String(event.role);
    const text = textOf(event);
    const before = unfinished.get(role) ?? "";
    unfinished.delete(role);
    const line = before && text.startsWith("\r") ? text.slice(1) : before + text;
    if (blocksOf(event).some((block) => block.partial === true)) {
      unfinished.set(role, line);
    } else {
      yield [role, line];
    }
  }
  yield* unfinished;
}

/** Return the text of an event's content, blocks joined by line ends; empty without any. */
export function textOf(event: Pick<Message, "content">): string {
  if (typeof event.content === "string") {
    return event.content;
  }
  const blocks = blocksOf(event).filter((block) => "text" in block);
  return blocks.map((block) => String(block.text)).join("\n");
}

function blocksOf({ content }: Pick<Message, "content">): Record<string, unknown>[] {
  const blocks: unknown[] = Array.isArray(content) ? content : [];
  return blocks.filter((block): block is Record<string, unknown> => typeof block === "object" && block !== null);
}
