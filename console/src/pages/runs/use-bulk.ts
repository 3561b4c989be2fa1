import { useCallback, useEffect, useRef, useState } from "react";
import {
  type Bulk,
  type BulkAction,
  type BulkPlan,
  type BulkScope,
  MOST_NAMED,
  planBulk,
  readBulk,
  startBulk,
  stopBulk,
} from "../../api/bulk";
import { queryClient } from "../../api/queries";

/** Runs by selection that one dialog acts on; more are for the filters. */
export const MOST_CHOSEN = 10_000;
const LOOK_MILLISECONDS = 500;

export type Step =
  | { at: "planning" }
  | { at: "planned"; plans: BulkPlan[] }
  | { at: "going"; plans: BulkPlan[]; bulks: Bulk[] }
  | { at: "ended"; bulks: Bulk[]; isStopped: boolean };

/** Plan an action on runs, then start it and follow it to its end. More runs than one request names are several jobs. */
export function useBulk(action: BulkAction, scope: BulkScope) {
  const [step, setStep] = useState<Step>({ at: "planning" });
  const [error, setError] = useState<unknown>(null);
  const isStopped = useRef(false);
  const isGone = useRef(false);
  // A dialog is about what it was opened for.
  const [asked] = useState({ action, scope });
  useEffect(() => {
    const abort = new AbortController();
    isGone.current = false;
    planAll(asked.action, asked.scope, abort.signal).then(
      (plans) => setStep({ at: "planned", plans }),
      (fault) => abort.signal.aborted || setError(fault),
    );
    return () => {
      isGone.current = true;
      abort.abort();
    };
  }, [asked]);

  const start = useCallback(async (plans: BulkPlan[]) => {
    const bulks: Bulk[] = [];
    setError(null);
    setStep({ at: "going", plans, bulks });
    try {
      for (const plan of plans) {
        if (isStopped.current || isGone.current) {
          break;
        }
        if (plan.matches > 0) {
          const id = await startBulk(plan);
          const place = bulks.length;
          await follow(id, isStopped, (bulk) => {
            bulks[place] = bulk;
            setStep({ at: "going", plans, bulks: [...bulks] });
          });
        }
      }
      setStep({ at: "ended", bulks, isStopped: isStopped.current });
    } catch (fault) {
      setError(fault);
    }
    // Deleted runs are told by their sessions only.
    void queryClient.invalidateQueries({ queryKey: ["runs"] });
  }, []);
  const stop = useCallback(() => {
    isStopped.current = true;
  }, []);
  return { step, error, start, stop };
}

async function planAll(action: BulkAction, scope: BulkScope, signal: AbortSignal): Promise<BulkPlan[]> {
  if (!("ids" in scope)) {
    return [await planBulk(action, scope, signal)];
  }
  if (scope.ids.length > MOST_CHOSEN) {
    throw new Error(
      `Select ${MOST_CHOSEN.toLocaleString("en")} runs at most, or use filters and select all that match.`,
    );
  }
  const plans: BulkPlan[] = [];
  for (let first = 0; first < scope.ids.length; first += MOST_NAMED) {
    plans.push(await planBulk(action, { ids: scope.ids.slice(first, first + MOST_NAMED) }, signal));
  }
  return plans;
}

/** Follow a job to its end; stop it once that is asked for. */
async function follow(id: string, isStopped: { current: boolean }, tell: (bulk: Bulk) => void): Promise<void> {
  let isTold = false;
  for (;;) {
    if (isStopped.current && !isTold) {
      isTold = true;
      await stopBulk(id);
    }
    const bulk = await readBulk(id);
    tell(bulk);
    if (bulk.state !== "running") {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
  }
}
