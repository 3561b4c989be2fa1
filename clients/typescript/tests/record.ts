/** Print each item of the feed as a line of JSON, up to the event type that ends it (test_typescript_client.py). */

import { CoordinatorClient } from "coordinator-client";

const { urls, after, types, end } = JSON.parse(process.argv[2] ?? "{}");

for await (const item of new CoordinatorClient({ url: urls }).feed({ after, types })) {
  process.stdout.write(`${JSON.stringify([item.id, item.event, item.data])}\n`);
  if (item.event === "event" && item.data.data.event_type === end) {
    break;
  }
}
