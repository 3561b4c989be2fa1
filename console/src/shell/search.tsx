import { useNavigate } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { destinationOf } from "../format/search";
import styles from "./shell.module.css";

export function Search() {
  const [text, setText] = useState("");
  const navigate = useNavigate();
  const go = (event: FormEvent) => {
    event.preventDefault();
    const found = destinationOf(text);
    if (!found) {
      return;
    }
    setText("");
    (document.activeElement as HTMLElement | null)?.blur();
    if (found.kind === "run") {
      void navigate({ to: "/runs/$runId", params: { runId: found.id } });
    } else if (found.kind === "session") {
      void navigate({ to: "/sessions/$sessionId", params: { sessionId: found.id } });
    } else if (found.kind === "runner") {
      void navigate({ to: "/runners/$runnerId", params: { runnerId: found.id } });
    } else {
      void navigate({ to: "/runs", search: found.filters });
    }
  };
  return (
    <search className={styles.search}>
      <form onSubmit={go}>
        <input
          id="search"
          type="search"
          value={text}
          onChange={(event) => setText(event.target.value)}
          placeholder="Id, or status:failed agent:… label:key=value  ( / )"
          aria-label="Search by id or by filters"
          autoComplete="off"
          spellCheck={false}
        />
      </form>
    </search>
  );
}
