import { queryOptions, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { useStreamState } from "../live/feed";
import { bundleIn, bundleName, consolePath } from "../location";

const servedBundle = queryOptions({
  queryKey: ["served-bundle"],
  queryFn: async () => {
    const answer = await fetch(`${consolePath}/`);
    return answer.ok ? bundleIn(await answer.text()) : null;
  },
  refetchOnWindowFocus: true,
  refetchInterval: 600_000,
});

/** Return whether the coordinator serves another build than this page; look again when the stream has come back. */
export function useIsOutdated(): boolean {
  const client = useQueryClient();
  const state = useStreamState();
  const served = useQuery(servedBundle);
  useEffect(() => {
    if (state === "live") {
      void client.invalidateQueries({ queryKey: servedBundle.queryKey });
    }
  }, [client, state]);
  return served.data !== null && served.data !== undefined && served.data !== bundleName;
}
