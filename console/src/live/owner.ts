import type { Extra, OwnerMessage, Presence, StreamState } from "./messages";
import { FeedStream } from "./stream";

const EXTRAS: readonly Extra[] = ["event", "audit"];
const HIDDEN_MILLISECONDS = 60_000;
// A page that ended without a word counts as hidden when it has not said for so long that it is visible.
const PRESENCE_MILLISECONDS = 30_000;

interface Page {
  presence: Presence;
  at: number;
}

/** Keep the one stream of all pages of this browser: open while a page is visible, and 60 s longer. */
export class StreamOwner {
  private readonly pages = new Map<string, Page>();
  private readonly stream: FeedStream;
  private state: StreamState = "connecting";
  /** Position after which this owner sends everything. */
  private since: string | null;
  private closing: ReturnType<typeof setTimeout> | undefined;
  private readonly looking: ReturnType<typeof setInterval>;

  /** `cursor`: where to go on after another owner, whose pages have got everything up to it. */
  constructor(
    root: string,
    private readonly send: (message: OwnerMessage) => void,
    cursor: string | null = null,
  ) {
    this.since = cursor;
    this.stream = new FeedStream(root, cursor, (message) => {
      if (message.kind === "state") {
        if (message.state === this.state) {
          return;
        }
        this.state = message.state;
      }
      if (message.kind === "joined") {
        this.since = message.cursor ?? this.stream.cursor;
        for (const { presence } of this.pages.values()) {
          this.join(presence, message.cursor);
        }
      } else {
        this.send(message);
      }
    });
    this.looking = setInterval(() => this.look(), PRESENCE_MILLISECONDS / 2);
  }

  /** Leave the stream to another owner; everything that it brought has been sent. */
  end(): void {
    clearInterval(this.looking);
    clearTimeout(this.closing);
    this.stream.end();
  }

  receive(presence: Presence): void {
    const known = this.pages.get(presence.from);
    if (presence.leaving) {
      this.pages.delete(presence.from);
    } else {
      this.pages.set(presence.from, { presence, at: Date.now() });
    }
    const isNews = !known || known.presence.request !== presence.request;
    // A page that was just opened or signed in tries again.
    if (isNews && this.state === "signed-out" && !presence.leaving) {
      this.state = "connecting";
    }
    this.look();
    if (isNews && !presence.leaving) {
      this.send({ kind: "state", state: this.state });
      if (this.stream.cursor !== null) {
        this.join(presence, this.stream.cursor);
      }
    }
  }

  private join({ from, request }: Presence, cursor: string | null): void {
    // All up to the cursor comes before it.
    this.stream.flush();
    this.send({ kind: "joined", cursor, since: this.since, to: from, request });
  }

  private look(): void {
    const oldest = Date.now() - PRESENCE_MILLISECONDS;
    const pages = [...this.pages.values()];
    const visible = pages.filter((page) => page.presence.visible && page.at >= oldest);
    this.stream.include(EXTRAS.filter((kind) => pages.some((page) => page.presence.include.includes(kind))));
    if (visible.length > 0) {
      clearTimeout(this.closing);
      this.closing = undefined;
      if (this.state !== "signed-out") {
        this.stream.start();
      }
    } else if (this.stream.isRunning) {
      this.closing ??= setTimeout(() => {
        this.closing = undefined;
        this.stream.stop("paused");
      }, HIDDEN_MILLISECONDS);
    }
  }
}
