import { queryOptions } from "@tanstack/react-query";
import { accepted, api } from "./client";
import { queryClient } from "./queries";
import type { components } from "./schema";

export type Hold = components["schemas"]["Hold"];

// The only hold of a single run has its name.
export const OF_RUN = "run:";

export const holdList = queryOptions({
  queryKey: ["holds"],
  queryFn: async ({ signal }) => accepted(await api.GET("/holds", { signal })).holds,
  refetchInterval: 10_000,
});

/** Keep a run from being claimed until it is released. */
export async function holdRun(id: string, note: string): Promise<void> {
  const params = { path: { run_id: id } };
  accepted(await api.POST("/runs/{run_id}/hold", { params, body: { note: note || null } }));
  await changed(id);
}

export async function releaseRun(id: string): Promise<void> {
  accepted(await api.POST("/runs/{run_id}/release", { params: { path: { run_id: id } } }));
  await changed(id);
}

export async function removeHold(hold: Hold): Promise<void> {
  if (hold.run_id !== null) {
    await releaseRun(hold.run_id);
    return;
  }
  accepted(await api.DELETE("/holds/{name}", { params: { path: { name: hold.name } } }));
  await queryClient.invalidateQueries({ queryKey: holdList.queryKey });
}

async function changed(id: string): Promise<void> {
  await Promise.all([
    queryClient.invalidateQueries({ queryKey: ["run", id] }),
    queryClient.invalidateQueries({ queryKey: holdList.queryKey }),
  ]);
}
