import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { whoAmI } from "../../api/queries";
import { type Webhook, webhookList } from "../../api/webhooks";
import { Empty, Labels, Loading, Notice, pageClass } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { webhookCommand } from "../commands";

export function WebhooksPage() {
  const me = useQuery(whoAmI).data;
  if (!me) {
    return <Loading />;
  }
  if (me.role === "runner") {
    return (
      <Empty isPage title="Webhooks are shown to users and administrators">
        A runner has none.
      </Empty>
    );
  }
  return <Webhooks />;
}

function Webhooks() {
  const webhooks = useQuery(webhookList);
  return (
    <div className={pageClass}>
      <h1>Webhooks</h1>
      {webhooks.isPending && <Loading />}
      {webhooks.isError && <Notice error={webhooks.error} />}
      {webhooks.data?.length === 0 && (
        <Empty title="No webhook yet" command={webhookCommand()}>
          A webhook is an address that is told when runs and sessions end. Create one from a shell: its secret is shown
          there, once.
        </Empty>
      )}
      {webhooks.data !== undefined && webhooks.data.length > 0 && <WebhookTable webhooks={webhooks.data} />}
    </div>
  );
}

function WebhookTable({ webhooks }: { webhooks: Webhook[] }) {
  return (
    <Table label="Webhooks" heads={["Webhook", "State", "Address", "Told of", "Of", "Agent", "Labels", "Changed"]}>
      {webhooks.map((webhook) => (
        <tr key={webhook.webhook_id} data-webhook={webhook.webhook_id}>
          <td title={webhook.description ?? undefined}>
            <Link to="/webhooks/$webhookId" params={{ webhookId: webhook.webhook_id }}>
              {webhook.webhook_id}
            </Link>
          </td>
          <td>
            <Use of={webhook} />
          </td>
          <td>{webhook.url}</td>
          <td>{webhook.events.join(", ")}</td>
          <td>{webhook.owner ?? "all owners"}</td>
          <td>{webhook.agent_name ?? "any"}</td>
          <td>{Object.keys(webhook.labels).length > 0 ? <Labels labels={webhook.labels} /> : "any"}</td>
          <td>
            <Time at={webhook.updated_at} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

/** Say whether a webhook is in use, and why not. */
export function Use({ of: webhook }: { of: Webhook }) {
  if (!webhook.disabled) {
    return <>in use</>;
  }
  return <>disabled{webhook.disabled_reason && `: ${webhook.disabled_reason}`}</>;
}
