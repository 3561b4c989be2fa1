import { createParser } from "eventsource-parser";
import type { Extra, FeedEvent, OwnerMessage, StreamState } from "./messages";

const KINDS = "session_created,session_updated,session_deleted,run_updated";
const BATCH_MILLISECONDS = 60;
const LONGEST_PAUSE_MILLISECONDS = 15_000;
// The server sends a comment every 15 s: a stream silent for longer is dead, whatever the network says.
const SILENCE_MILLISECONDS = 45_000;

/** Follow the feed over fetch, resume it exactly, and pass its events on in batches. */
export class FeedStream {
  private abort: AbortController | null = null;
  private extras: Extra[] = [];
  private isAuditRefused = false;
  private retry = 1500;
  private failures = 0;
  private batch: FeedEvent[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** `cursor`: position from which the stream is resumed. */
  constructor(
    private readonly root: string,
    public cursor: string | null,
    private readonly emit: (message: OwnerMessage) => void,
  ) {}

  get isRunning(): boolean {
    return this.abort !== null;
  }

  start(): void {
    if (!this.abort) {
      this.abort = new AbortController();
      void this.follow(this.abort);
    }
  }

  stop(state: StreamState): void {
    this.end();
    this.emit({ kind: "state", state });
  }

  end(): void {
    this.abort?.abort();
    this.abort = null;
    this.flush();
  }

  /** Include these kinds from now on, and no others of the sort; the stream is resumed where it is. */
  include(extras: Extra[]): void {
    if (extras.join() === this.extras.join()) {
      return;
    }
    this.extras = extras;
    this.isAuditRefused = false;
    if (this.abort) {
      this.end();
      this.start();
    }
  }

  private async follow(abort: AbortController): Promise<void> {
    this.emit({ kind: "state", state: this.cursor ? "reconnecting" : "connecting" });
    while (!abort.signal.aborted) {
      try {
        const status = await this.connect(abort.signal);
        if (status === 401 || status === 403) {
          this.stop("signed-out");
          return;
        }
        // Another tab may have signed in as someone to whom no acts are sent.
        this.isAuditRefused ||= status === 422;
        this.failures = status === 200 ? 0 : this.failures + 1;
      } catch {
        this.failures += 1;
      }
      if (abort.signal.aborted) {
        return;
      }
      if (this.failures > 0) {
        this.emit({ kind: "state", state: "reconnecting" });
      }
      const pause =
        this.failures === 0 ? 50 : Math.min(this.retry * 2 ** (this.failures - 1), LONGEST_PAUSE_MILLISECONDS);
      await new Promise((resolve) => setTimeout(resolve, pause * (0.75 + Math.random() / 2)));
    }
  }

  /** Read one connection to its end; return its status. */
  private async connect(stopped: AbortSignal): Promise<number> {
    const kinds = [KINDS, ...this.extras.filter((kind) => kind !== "audit" || !this.isAuditRefused)].join();
    const headers: Record<string, string> = { "X-Coordinator-Console": "1", Accept: "text/event-stream" };
    if (this.cursor) {
      headers["Last-Event-ID"] = this.cursor;
    }
    const silence = new AbortController();
    const signal = AbortSignal.any([stopped, silence.signal]);
    const address = `${this.root}sse/sessions?types=${kinds}&include_init=false`;
    const response = await fetch(address, { headers, signal, cache: "no-store" });
    if (response.status !== 200 || !response.body) {
      await response.body?.cancel();
      return response.status;
    }
    const parser = createParser({
      onId: (id) => this.passed(id),
      onEvent: (event) => this.received(event.event ?? "message", event.id ?? "", event.data),
      onRetry: (milliseconds) => {
        this.retry = milliseconds;
      },
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const timer = setTimeout(() => silence.abort(), SILENCE_MILLISECONDS);
      const part = await reader.read().finally(() => clearTimeout(timer));
      if (part.done) {
        return 200;
      }
      parser.feed(part.value);
    }
  }

  private passed(id: string): void {
    const isFirst = this.cursor === null;
    this.cursor = id;
    this.emit({ kind: "state", state: "live" });
    if (isFirst) {
      this.emit({ kind: "joined", cursor: id });
    }
  }

  private received(type: string, id: string, data: string): void {
    if (type === "reset") {
      // History is incomplete here: pages read everything again.
      this.flush();
      this.emit({ kind: "joined", cursor: null });
    } else if (type !== "init") {
      this.batch.push({ id, type, data: JSON.parse(data) });
      this.timer ??= setTimeout(() => this.flush(), BATCH_MILLISECONDS);
    }
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.batch.length > 0) {
      this.emit({ kind: "events", events: this.batch });
      this.batch = [];
    }
  }
}
