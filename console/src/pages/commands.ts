import { apiRoot } from "../location";

/** Return the line that submits a run to this coordinator. */
export function submitCommand(): string {
  return `COORDINATOR_URL=${apiRoot.replace(/\/$/, "")} coordinator submit 'Say hello' --wait`;
}

/** Return the line that starts a runner for this coordinator. */
export function runnerCommand(): string {
  return `coordinator runner --url ${apiRoot.replace(/\/$/, "")} -- python -m runner.demo`;
}

/** Return the line that creates a webhook at this coordinator. */
export function webhookCommand(): string {
  const hook = '{"url": "https://example.com/hook", "events": ["run.failed"]}';
  return `echo '${hook}' | coordinator webhooks put ID - --url ${apiRoot.replace(/\/$/, "")}`;
}
