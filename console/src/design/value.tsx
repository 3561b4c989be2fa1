import { useMemo, useState } from "react";
import { Button } from "react-aria-components";
import { formatExact } from "../format/exact";
import { Copy, quietClass } from "./parts";
import styles from "./value.module.css";

const MOST_SHOWN = 100_000;

/** Show what a user or a job wrote, exactly: text as it is, all else as JSON. */
export function Value({ value, name }: { value: unknown; name: string }) {
  const [whole, setWhole] = useState(false);
  const text = useMemo(() => (typeof value === "string" ? value : formatExact(value)), [value]);
  const isCut = !whole && text.length > MOST_SHOWN;
  return (
    <figure className={styles.value}>
      <figcaption>
        <span>{name}</span>
        <Copy text={text} label={`Copy ${name}`} />
      </figcaption>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard */}
      <pre tabIndex={0}>{isCut ? text.slice(0, MOST_SHOWN) : text}</pre>
      {isCut && (
        <Button className={quietClass} onPress={() => setWhole(true)}>
          Show all {text.length.toLocaleString("en")} characters
        </Button>
      )}
    </figure>
  );
}
