import { useMemo, useState } from "react";
import { Button } from "react-aria-components";
import { quietClass, Section } from "../../design/parts";
import { compareLines, type Stretch, shortened, splitLines } from "../../format/compare";
import styles from "./diff.module.css";

const MOST_LINES = 3000;

/** Show how a text differs from another, line by line; say in a word when it does not. */
export function Differences({ title, first, second }: { title: string; first: string; second: string }) {
  if (first === "" && second === "") {
    return null;
  }
  if (first === second) {
    return (
      <Section title={title}>
        <p className={styles.same}>The same in both.</p>
      </Section>
    );
  }
  return (
    <Section title={title}>
      <Lines first={first} second={second} title={title} />
    </Section>
  );
}

function Lines({ first, second, title }: { first: string; second: string; title: string }) {
  const [whole, setWhole] = useState(false);
  const stretches = useMemo(() => compareLines(first, second), [first, second]);
  const both: Stretch[] = stretches ?? [
    { sign: "-", lines: splitLines(first) },
    { sign: "+", lines: splitLines(second) },
  ];
  const shown = whole ? both.map((stretch) => ({ ...stretch, hidden: 0 })) : shortened(both);
  const rows = shown.flatMap(({ sign, lines, hidden }) => [
    ...lines.map((text) => ({ sign, text })),
    ...(hidden > 0 ? [{ sign: "…", text: `${hidden.toLocaleString("en")} equal lines` }] : []),
  ]);
  const isCut = !whole && rows.length > MOST_LINES;
  const isShort = isCut || shown.some(({ hidden }) => hidden > 0);
  return (
    <>
      {stretches === null && <p className={styles.same}>They differ in too much to compare them line by line.</p>}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard */}
      <div className={styles.lines} tabIndex={0} role="group" aria-label={`Differences of ${title}`}>
        {(isCut ? rows.slice(0, MOST_LINES) : rows).map(({ sign, text }, place) => (
          <div key={place} data-sign={sign}>
            <span className={styles.sign}>{sign === "-" ? "−" : sign}</span>
            <span className={styles.text}>{text}</span>
          </div>
        ))}
      </div>
      {isShort && (
        <Button className={quietClass} onPress={() => setWhole(true)}>
          Show all lines
        </Button>
      )}
    </>
  );
}
