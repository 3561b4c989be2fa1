// The bundle lies in <prefix>/console/assets/: the addresses of the console and of the API follow from its own.
const bundle = import.meta.url;

/** Name of the bundle, which contains a hash of it. */
export const bundleName = new URL(bundle).pathname.replace(/^.*\//, "");

/** Path of the console, without a slash at its end. */
export const consolePath = new URL("..", bundle).pathname.replace(/\/$/, "");

/** Address of the API, with a slash at its end. */
export const apiRoot = new URL("../..", bundle).href;

/** Return the name of the bundle that a page of the console loads, null if it loads none. */
export function bundleIn(page: string): string | null {
  return /assets\/(index-[\w-]+\.js)"/.exec(page)?.[1] ?? null;
}
