import { getRouteApi } from "@tanstack/react-router";
import { useState } from "react";
import { Button } from "react-aria-components";
import { isFiltered, type RunsSearch } from "../../api/filters";
import { chipClass, quietClass } from "../../design/parts";
import styles from "./runs.module.css";
import { SaveView, ViewsDialog } from "./view-dialogs";
import { useViews, viewOf } from "./views";

const route = getRouteApi("/runs");

/** Saved views to choose from, and a way to save the filters as one. */
export function ViewBar({ search }: { search: RunsSearch }) {
  const views = useViews();
  const [open, setOpen] = useState<"save" | "manage" | null>(null);
  const { view: name, all, ...filters } = search;
  const shown = viewOf(views, filters);
  const canSave = isFiltered(filters) && !shown;
  if (views.views.length === 0 && !canSave) {
    return null;
  }
  return (
    <nav className={styles.filters} aria-label="Views">
      {views.views.length > 0 && (
        <route.Link
          to="/runs"
          search={{ all: true }}
          className={chipClass}
          activeProps={{}}
          data-selected={!isFiltered(filters) || undefined}
          aria-current={isFiltered(filters) ? undefined : "page"}
        >
          All runs
        </route.Link>
      )}
      {views.views.map((view) => (
        <route.Link
          key={view.name}
          to="/runs"
          search={{ ...view.filters, view: view.name }}
          className={chipClass}
          activeProps={{}}
          data-selected={view === shown || undefined}
          aria-current={view === shown ? "page" : undefined}
        >
          {view.name}
          {view.name === views.default && <span title="Default view"> ★</span>}
        </route.Link>
      ))}
      {canSave && (
        <Button className={quietClass} onPress={() => setOpen("save")}>
          Save as view
        </Button>
      )}
      {views.views.length > 0 && (
        <Button className={quietClass} onPress={() => setOpen("manage")}>
          Manage views
        </Button>
      )}
      {open === "save" && <SaveView filters={filters} name={name ?? ""} close={() => setOpen(null)} />}
      {open === "manage" && <ViewsDialog close={() => setOpen(null)} />}
    </nav>
  );
}
