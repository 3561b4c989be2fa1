import type { ReactNode } from "react";
import styles from "./table.module.css";

/** Show rows (`<tr>`) under headings; a table wider than its place scrolls sideways. `label` names it to readers of the page. */
export function Table({
  label,
  heads,
  className = "",
  children,
}: {
  label: string;
  heads: readonly string[];
  className?: string | undefined;
  children: ReactNode;
}) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard
    <div className={`${styles.scroll} ${className}`} tabIndex={0} role="region" aria-label={label}>
      <table className={styles.table}>
        <thead>
          <tr>
            {heads.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
