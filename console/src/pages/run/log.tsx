import { useDeferredValue, useMemo, useState } from "react";
import { Button, ToggleButton } from "react-aria-components";
import { Copy, Loading, Notice, quietClass } from "../../design/parts";
import { isError, type Line, placesOf } from "./lines";
import styles from "./log.module.css";
import { Lines } from "./log-lines";
import { LogSearch } from "./log-search";
import { useLog } from "./use-log";

interface Logged {
  session: string;
  run: string | null;
  isLive: boolean;
}

/** Show what a run has written, line by line and live, in the colours of a terminal. */
export function Log({ session, run, isLive }: Logged) {
  const { log, readEarlier } = useLog(session, run);
  const [words, setWords] = useState("");
  const [follows, setFollows] = useState(true);
  const [errorsOnly, setErrorsOnly] = useState(false);
  const [matchesOnly, setMatchesOnly] = useState(false);
  const [current, setCurrent] = useState<number | null>(null);
  const wanted = useDeferredValue(words);
  const base = useMemo(() => (errorsOnly ? log.lines.filter(isError) : log.lines), [log.lines, errorsOnly]);
  const places = useMemo(() => (wanted ? placesOf(base, wanted) : []), [base, wanted]);
  const shown = useMemo(
    () => (wanted && matchesOnly ? places.flatMap((place) => base[place] ?? []) : base),
    [base, places, wanted, matchesOnly],
  );
  const matches = useMemo(() => new Set(places.map((place) => base[place]?.key)), [base, places]);
  const step = (by: 1 | -1) => {
    const keys = [...matches] as number[];
    const at = current === null ? -1 : keys.indexOf(current);
    const next = at < 0 ? (by > 0 ? 0 : keys.length - 1) : (at + by + keys.length) % keys.length;
    setFollows(false);
    setCurrent(keys[next] ?? null);
  };
  return (
    <section className={styles.log} aria-label="Log">
      <div className={styles.tools}>
        <LogSearch words={words} setWords={setWords} matches={matches} current={current} step={step} />
        {words && (
          <ToggleButton className={quietClass} isSelected={matchesOnly} onChange={setMatchesOnly}>
            Matches only
          </ToggleButton>
        )}
        <ToggleButton className={quietClass} isSelected={errorsOnly} onChange={setErrorsOnly}>
          Errors only
        </ToggleButton>
        <ToggleButton className={quietClass} isSelected={follows} onChange={setFollows}>
          {follows ? "Following the end" : "Jump to the end"}
        </ToggleButton>
        <Copy text={() => shown.map((line) => line.plain).join("\n")} label="Copy the log" />
        <span>{countOf(shown, log.lines)}</span>
        {log.earlier && (
          <Button className={quietClass} onPress={() => void readEarlier()} isDisabled={log.isLoading}>
            {log.isLoading ? "Reading…" : "Read earlier lines"}
          </Button>
        )}
      </div>
      {log.error !== null && <Notice error={log.error} />}
      {log.isLoading && log.lines.length === 0 && <Loading />}
      {shown.length === 0 && !log.isLoading && log.error === null && (
        <p className={styles.nothing}>{emptyText(log.lines.length > 0, isLive, run === null)}</p>
      )}
      {shown.length > 0 && (
        <Lines lines={shown} follows={follows} setFollows={setFollows} matches={matches} current={current} />
      )}
    </section>
  );
}

function countOf(shown: Line[], all: Line[]): string {
  const total = `${all.length.toLocaleString("en")} line${all.length === 1 ? "" : "s"}`;
  return shown.length === all.length ? total : `${shown.length.toLocaleString("en")} of ${total}`;
}

function emptyText(hasOthers: boolean, isLive: boolean, isSession: boolean): string {
  if (hasOthers) {
    return "No line is like that.";
  }
  const writer = isSession ? "session" : "run";
  return isLive ? "Nothing written yet." : `This ${writer} has written nothing, or it is no longer kept.`;
}
