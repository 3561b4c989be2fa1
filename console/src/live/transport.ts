import { apiRoot } from "../location";
import type { OwnerMessage, Presence } from "./messages";
import { StreamOwner } from "./owner";
import workerAddress from "./worker?worker&url";

export type Send = (presence: Presence) => void;
type Receive = (message: OwnerMessage) => void;

const CHANNEL = "coordinator-console";

interface TrustedTypes {
  createPolicy(
    name: string,
    rules: { createScriptURL: (url: string) => string },
  ): {
    createScriptURL(url: string): string;
  };
}

/**
 * Connect this page to the owner of the browser's one stream: a shared worker, else an elected page, else itself.
 * `position` returns up to where this page has got everything.
 */
export function connect(receive: Receive, position: () => string | null): Send {
  if ("SharedWorker" in globalThis) {
    const worker = new SharedWorker(trusted(new URL(workerAddress, import.meta.url).href), {
      type: "module",
      name: CHANNEL,
    });
    // Its script is gone from the replica that was asked: public/assets/boot.js loads the page again.
    worker.onerror = () => dispatchEvent(new Event("coordinator:missing"));
    worker.port.onmessage = (event: MessageEvent<OwnerMessage>) => receive(event.data);
    return (presence) => worker.port.postMessage(presence);
  }
  if (navigator.locks && "BroadcastChannel" in globalThis) {
    return electOwner(receive, position);
  }
  const owner = new StreamOwner(apiRoot, receive);
  return (presence) => owner.receive(presence);
}

/**
 * Elect the page that owns the stream by a lock. Only visible pages stand for it, since browsers slow hidden ones down,
 * and a hidden owner gives way to a visible page. The next owner goes on from where it has got everything; pages that
 * have got more leave out what they know.
 */
function electOwner(receive: Receive, position: () => string | null): Send {
  const up = new BroadcastChannel(`${CHANNEL}-up`);
  const down = new BroadcastChannel(`${CHANNEL}-down`);
  let owner: StreamOwner | null = null;
  let resign = () => {};
  let standing: AbortController | null = null;
  let last: Presence | null = null;
  const serve = () => {
    owner = new StreamOwner(
      apiRoot,
      (message) => {
        down.postMessage(message);
        receive(message);
      },
      position(),
    );
    if (last) {
      owner.receive(last);
    }
    // The lock is held until this page resigns or ends.
    return new Promise<void>((resolve) => {
      resign = () => {
        owner?.end();
        owner = null;
        standing = null;
        resolve();
      };
    });
  };
  const stand = (isVisible: boolean) => {
    if (isVisible && !standing) {
      standing = new AbortController();
      navigator.locks.request(CHANNEL, { signal: standing.signal }, serve).catch(() => undefined);
    } else if (!isVisible && standing && !owner) {
      standing.abort();
      standing = null;
    }
  };
  down.onmessage = (event: MessageEvent<OwnerMessage>) => receive(event.data);
  up.onmessage = (event: MessageEvent<Presence>) => {
    owner?.receive(event.data);
    if (owner && last && !last.visible && event.data.visible) {
      resign();
    }
  };
  return (presence) => {
    last = presence;
    stand(presence.visible && !presence.leaving);
    if (owner) {
      owner.receive(presence);
      if (presence.leaving) {
        resign();
      }
    } else {
      up.postMessage(presence);
    }
  };
}

/** Return the address as the policy of the page wants it: this one script may be started as a worker. */
function trusted(address: string): string {
  const types = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes;
  const policy = types?.createPolicy("coordinator", {
    createScriptURL: (url) => {
      if (url !== address) {
        throw new TypeError("No other script may be started");
      }
      return url;
    },
  });
  return policy ? policy.createScriptURL(address) : address;
}
