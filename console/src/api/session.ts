import { queryOptions } from "@tanstack/react-query";
import { feed } from "../live/feed";
import { apiRoot, consolePath } from "../location";
import { accepted, api } from "./client";
import { queryClient } from "./queries";

/** Exchange a key for the session cookie of this browser; the key is not kept. */
export async function signIn(key: string): Promise<void> {
  accepted(await api.POST("/console/session", { body: { api_key: key } }));
  feed.join();
  await queryClient.resetQueries();
}

/** Read how one may sign in, and why the last sign-in by OIDC failed. */
export const signInMethods = queryOptions({
  queryKey: ["sign-in methods"],
  queryFn: async ({ signal }) => accepted(await api.GET("/console/sign-in/methods", { signal })),
  staleTime: 0,
});

const LONGEST_PLACE = 1024;

/** Return the address that leads to the identity provider, and from there back to this page. */
export function signInAddress(): string {
  const place = (location.pathname.slice(consolePath.length) || "/") + location.search;
  // Browsers leave some characters of a query as they are, which are none of an address.
  const encoded = place.replace(/[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]/gu, encodeURIComponent);
  const returnTo = encoded.length <= LONGEST_PLACE ? encoded : "/";
  return `${apiRoot}console/sign-in?return_to=${encodeURIComponent(returnTo)}`;
}

export async function signOut(): Promise<void> {
  accepted(await api.DELETE("/console/session"));
  queryClient.clear();
  location.reload();
}
