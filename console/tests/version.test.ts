import { expect, test } from "vitest";
import { bundleIn } from "../src/location";

test("the bundle of a page is found at any path of it, and none in pages of others", () => {
  const page = (address: string) => `<script type="module" crossorigin src="${address}"></script>`;
  expect(bundleIn(page("../assets/index-B1_x-2.js"))).toBe("index-B1_x-2.js");
  expect(bundleIn(page("assets/boot.js") + page("assets/index-C.js"))).toBe("index-C.js");
  expect(bundleIn("<h1>Sign in to the proxy</h1>")).toBeNull();
});
