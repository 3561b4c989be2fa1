interface Actions {
  help: () => void;
  go: (to: (typeof PLACES)[keyof typeof PLACES]) => void;
}

const PLACES = {
  o: "/",
  r: "/runs",
  s: "/sessions",
  c: "/schedules",
  n: "/runners",
  e: "/agents",
  w: "/webhooks",
  a: "/audit",
  k: "/keys",
} as const;
const SEQUENCE_MILLISECONDS = 1000;

/** Act on the keys of the help: `/`, `?`, and `g` with a letter; never while someone types. */
export function onShortcuts(actions: Actions): () => void {
  let went = 0;
  const press = (event: KeyboardEvent) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, [role=dialog]")) {
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("search")?.focus();
    } else if (event.key === "?") {
      actions.help();
    } else if (event.key === "g") {
      went = event.timeStamp;
    } else if (event.key in PLACES && event.timeStamp - went < SEQUENCE_MILLISECONDS) {
      went = 0;
      actions.go(PLACES[event.key as keyof typeof PLACES]);
    }
  };
  document.addEventListener("keydown", press);
  return () => document.removeEventListener("keydown", press);
}
