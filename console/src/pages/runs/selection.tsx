import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Button } from "react-aria-components";
import type { BulkAction, BulkScope } from "../../api/bulk";
import type { RunSummary } from "../../api/client";
import type { RunFilters } from "../../api/filters";
import { whoAmI } from "../../api/queries";
import { dangerClass, quietClass } from "../../design/parts";
import { formatNumber } from "../../format/numbers";
import { BulkDialog } from "./bulk-dialog";
import { type Chosen, NONE, tally } from "./chosen";
import styles from "./runs.module.css";

interface Selected {
  runs: RunSummary[];
  filters: RunFilters;
  hasMore: boolean;
  chosen: Chosen;
  choose: (change: (chosen: Chosen) => Chosen) => void;
}

/** Act on the chosen runs, or on all that match the filters. */
export function Selection({ runs, filters, hasMore, chosen, choose }: Selected) {
  const [isAll, setIsAll] = useState(false);
  const [asked, setAsked] = useState<{ action: BulkAction; scope: BulkScope } | null>(null);
  const role = useQuery(whoAmI).data?.role;
  const count = chosen.ids.size;
  const { shown, unfinished, ended } = tally(chosen, runs);
  const scope: BulkScope = isAll ? { filters } : { ids: [...chosen.ids] };
  const ask = (action: BulkAction) => setAsked({ action, scope });
  const clear = () => {
    setIsAll(false);
    choose(() => NONE);
  };
  const isOpen = role !== "runner" && (isAll || count > 0);
  const known = isAll || shown < count;
  return (
    <div className={styles.selection}>
      <span className={isOpen ? "" : styles.count} aria-live="polite">
        {isAll ? "All that match" : count > 0 ? chosenText(count, shown) : `${formatNumber(runs.length)} shown`}
      </span>
      {isOpen && (
        <>
          <Button className={dangerClass} isDisabled={!known && unfinished === 0} onPress={() => ask("stop")}>
            Stop {known ? "" : formatNumber(unfinished)}
          </Button>
          <Button className={dangerClass} isDisabled={!known && ended === 0} onPress={() => ask("delete")}>
            Delete {known ? "" : formatNumber(ended)}
          </Button>
          <Button className={quietClass} isDisabled={!known && ended === 0} onPress={() => ask("replay")}>
            Replay {known ? "" : formatNumber(ended)}
          </Button>
          <Button className={quietClass} onPress={clear}>
            Clear
          </Button>
        </>
      )}
      {!isAll && runs.length > 0 && role !== "runner" && (
        <Button className={quietClass} onPress={() => setIsAll(true)}>
          Select all that match{hasMore ? ", beyond those loaded" : ""}
        </Button>
      )}
      {asked && <BulkDialog {...asked} close={() => setAsked(null)} done={clear} />}
    </div>
  );
}

function chosenText(count: number, shown: number): string {
  return shown < count
    ? `${formatNumber(count)} selected, ${formatNumber(count - shown)} not loaded`
    : `${formatNumber(count)} selected`;
}
