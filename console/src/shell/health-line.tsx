import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { health, readFailedAgain } from "../api/health";
import { wordsOf } from "../format/health";
import styles from "./shell.module.css";

/** Say what is wrong with the coordinator while something is, and read the pages again once it is over. */
export function HealthLine() {
  const asked = useQuery(health).data;
  const words = asked === undefined ? null : wordsOf(asked);
  const isAway = words?.isAway ?? false;
  const was = useRef(false);
  useEffect(() => {
    if (was.current && !isAway) {
      readFailedAgain();
    }
    was.current = isAway;
  }, [isAway]);
  return (
    words && (
      <p role="alert" aria-label="Health" className={styles.health} data-away={isAway || undefined}>
        <b>{words.says}.</b> {words.means} This page looks again by itself.
      </p>
    )
  );
}
