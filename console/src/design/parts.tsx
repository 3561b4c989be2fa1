import { type ReactNode, useEffect, useState } from "react";
import { Button } from "react-aria-components";
import styles from "./parts.module.css";

const GLYPHS: Record<string, string> = {
  pending: "○",
  claimed: "◔",
  running: "◑",
  stopping: "◒",
  completed: "●",
  finished: "●",
  idle: "◉",
  failed: "✕",
  stopped: "■",
  online: "●",
  stale: "○",
};

export function Status({ of: status }: { of: string }) {
  return (
    <span className={`${styles.status} ${styles[status] ?? ""}`} data-status={status}>
      <span aria-hidden="true">{GLYPHS[status] ?? "·"}</span> {status}
    </span>
  );
}

export function Labels({ labels }: { labels: Record<string, string> }) {
  return Object.entries(labels).map(([key, value]) => (
    <span key={key} className={styles.label} title={`${key}=${value}`}>
      {key}={value}
    </span>
  ));
}

interface Nothing {
  title: string;
  children?: ReactNode;
  command?: string;
  /** Whether it is all that the page has. */
  isPage?: boolean;
}

/** Say that there is nothing, and what to do next: `command` is a line for a shell. */
export function Empty({ title, children, command, isPage = false }: Nothing) {
  return (
    <div className={styles.empty}>
      {isPage ? <h1>{title}</h1> : <h2>{title}</h2>}
      {children}
      {command && (
        <div className={styles.command}>
          <code>{command}</code>
          <Copy text={command} />
        </div>
      )}
    </div>
  );
}

export function Notice({ error }: { error: unknown }) {
  const text = error instanceof Error ? error.message : String(error);
  return (
    <p role="alert" className={styles.notice}>
      {text}
    </p>
  );
}

export function Loading() {
  return <p className={styles.loading}>Loading…</p>;
}

/** Copy a text; a function makes a long one only when it is wanted. */
export function Copy({ text, label = "Copy" }: { text: string | (() => string); label?: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    const timer = copied ? setTimeout(() => setCopied(false), 1500) : undefined;
    return () => clearTimeout(timer);
  }, [copied]);
  const press = () => void copy(typeof text === "string" ? text : text()).then(setCopied);
  return (
    <Button
      className={styles.quiet ?? ""}
      aria-label={copied ? label.replace("Copy", "Copied") : label}
      onPress={press}
    >
      {copied ? "Copied" : "Copy"}
    </Button>
  );
}

/** Copy a text, also over plain HTTP, where browsers offer no clipboard. */
async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement as HTMLElement | null;
    const area = document.createElement("textarea");
    area.value = text;
    // A dialog keeps the focus within itself.
    (focused?.closest("[role=dialog], [role=alertdialog]") ?? document.body).append(area);
    area.focus();
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

export function Section({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  return (
    <section className={styles.section} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

export function Facts({ children }: { children: ReactNode }) {
  return <dl className={styles.facts}>{children}</dl>;
}

export function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export const buttonClass = styles.button ?? "";
export const accentClass = `${styles.button} ${styles.accent}`;
export const dangerClass = `${styles.button} ${styles.danger}`;
export const quietClass = styles.quiet ?? "";
export const chipClass = styles.chip ?? "";
export const pageClass = styles.page ?? "";
export const titleClass = styles.title ?? "";
