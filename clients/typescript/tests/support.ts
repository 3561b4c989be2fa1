import { once } from "node:events";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { CoordinatorClient, type RunRequest } from "coordinator-client";

/** Address of the coordinator, whose streams end after a second (tests/processes/test_typescript_client.py). */
export const ADDRESS = process.env.COORDINATOR_TEST_URL ?? "";

export function client(url: string | string[] = ADDRESS, patienceSeconds?: number): CoordinatorClient {
  return new CoordinatorClient({ url, patienceSeconds });
}

export function prompt(text: string, fields: Partial<RunRequest> = {}): RunRequest {
  return { parameters: { prompt: text }, ...fields };
}

type Answer = (incoming: IncomingMessage, outgoing: ServerResponse) => void;

/** Serve these answers until the end of the test; return the address. */
export async function serve(test: TestContext, answer: Answer): Promise<string> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Let the coordinator answer; with `isLost` the connection is cut when it has. */
export function pass(incoming: IncomingMessage, outgoing: ServerResponse, isLost = false): void {
  const { method = "GET", headers } = incoming;
  const onward = request(`${ADDRESS}${incoming.url}`, { method, headers }, (answer) => {
    if (isLost) {
      answer.resume().on("end", () => incoming.socket.destroy());
    } else {
      outgoing.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(outgoing);
    }
  });
  incoming.pipe(onward);
  outgoing.on("close", () => onward.destroy());
}

/** Return an address at which nothing listens. */
export async function closedAddress(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return `http://127.0.0.1:${port}`;
}

export async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) {
    all.push(item);
  }
  return all;
}
