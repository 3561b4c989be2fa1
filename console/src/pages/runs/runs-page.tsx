import { getRouteApi, Navigate } from "@tanstack/react-router";
import { useCallback, useMemo, useRef, useState } from "react";
import { Button } from "react-aria-components";
import { isFiltered, type RunFilters, type RunsSearch } from "../../api/filters";
import { Empty, Loading, Notice, pageClass, quietClass } from "../../design/parts";
import { Time } from "../../design/time";
import { submitCommand } from "../commands";
import { type Chosen, NONE } from "./chosen";
import { Filters } from "./filters";
import { RunTable } from "./run-table";
import styles from "./runs.module.css";
import { Selection } from "./selection";
import { type More, useRunList } from "./use-run-list";
import { ViewBar } from "./view-bar";
import { useViews } from "./views";

const route = getRouteApi("/runs");

export function RunsPage() {
  const search = route.useSearch();
  const { view, all, ...chosen } = search;
  // The router makes a new object for each address; the same filters keep the same list.
  const text = JSON.stringify(chosen);
  const filters = useMemo(() => JSON.parse(text) as RunFilters, [text]);
  const views = useViews();
  const first = views.views.find((each) => each.name === views.default);
  if (first && !isFiltered(filters) && !all) {
    return <Navigate from="/runs" to="/runs" search={{ ...first.filters, view: first.name } as RunsSearch} replace />;
  }
  return (
    <div className={`${pageClass} ${styles.page}`}>
      <h1 className={styles.heading}>Runs</h1>
      <ViewBar search={search} />
      <Filters filters={filters} />
      <RunList key={text} filters={filters} isMain />
    </div>
  );
}

/** List of runs by the filters; also on the pages of sessions and runners. */
export function RunList({ filters, isMain = false }: { filters: RunFilters; isMain?: boolean }) {
  const { list, runs, fresh, showFresh, more } = useRunList(filters);
  const box = useRef<HTMLDivElement>(null);
  const [chosen, setChosen] = useState<Chosen>(NONE);
  const choose = useCallback((change: (chosen: Chosen) => Chosen) => setChosen(change), []);
  if (list.isPending) {
    return <Loading />;
  }
  if (list.isError && runs.length === 0) {
    return <Notice error={list.error} />;
  }
  if (runs.length === 0 && !fresh && chosen.ids.size === 0) {
    return <NoRuns filters={filters} more={more} />;
  }
  return (
    <>
      <div className={styles.above}>
        <Selection runs={runs} filters={filters} hasMore={more.exists} chosen={chosen} choose={choose} />
        {fresh && (
          <Button
            className={styles.fresh ?? ""}
            onPress={() => {
              showFresh();
              box.current?.scrollTo({ top: 0 });
            }}
          >
            {fresh.rows.length}
            {fresh.gap ? "+" : ""} new
          </Button>
        )}
      </div>
      <RunTable
        box={box}
        runs={runs}
        filters={filters}
        more={more}
        hasFresh={fresh !== null}
        showFresh={showFresh}
        chosen={chosen}
        choose={choose}
        isMain={isMain}
      />
    </>
  );
}

function NoRuns({ filters, more }: { filters: RunFilters; more: More }) {
  if (more.exists) {
    return (
      <Empty title="No run matches so far">
        {more.searchedUntil && (
          <p>
            Searched back to <Time at={more.searchedUntil} />.
          </p>
        )}
        {more.error !== null && <Notice error={more.error} />}
        <Button className={quietClass} onPress={more.load}>
          Search further
        </Button>
      </Empty>
    );
  }
  if (isFiltered(filters)) {
    return (
      <Empty title="No run matches these filters">
        <route.Link to="/runs" search={{ all: true }} className={quietClass}>
          Show all runs
        </route.Link>
      </Empty>
    );
  }
  return (
    <Empty title="No run yet" command={submitCommand()}>
      Submit one from a shell; this page shows it at once.
    </Empty>
  );
}
