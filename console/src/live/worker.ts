import { apiRoot } from "../location";
import type { OwnerMessage, Presence } from "./messages";
import { StreamOwner } from "./owner";

// A shared worker: the one owner of the stream for all pages of this browser.
const ports = new Set<MessagePort>();
const owner = new StreamOwner(apiRoot, (message: OwnerMessage) => {
  for (const port of ports) {
    port.postMessage(message);
  }
});

addEventListener("connect", (event) => {
  const port = (event as MessageEvent).ports[0];
  if (!port) {
    return;
  }
  port.onmessage = (sent: MessageEvent<Presence>) => {
    // A page that left comes back from the browser's cache with the same port.
    if (sent.data.leaving) {
      ports.delete(port);
    } else {
      ports.add(port);
    }
    owner.receive(sent.data);
  };
});
