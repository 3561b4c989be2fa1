import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";
import { Button, ToggleButton } from "react-aria-components";
import {
  DELIVERY_STATES,
  type Delivery,
  type DeliveryState,
  deliveriesOf,
  replayDelivery,
  testWebhook,
  type Webhook,
  webhookOf,
} from "../../api/webhooks";
import {
  buttonClass,
  Copy,
  chipClass,
  Empty,
  Fact,
  Facts,
  Labels,
  Loading,
  Notice,
  pageClass,
  quietClass,
  Section,
  titleClass,
} from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { RunLink, SessionLink } from "../run/run-facts";
import { Use } from "./webhooks-page";

const route = getRouteApi("/webhooks/$webhookId");

export function WebhookPage() {
  const { webhookId } = route.useParams();
  const webhook = useQuery(webhookOf(webhookId));
  const [error, setError] = useState<unknown>(null);
  const act = (doing: Promise<void>) => {
    setError(null);
    doing.catch(setError);
  };
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>
          <code>{webhookId}</code>
        </h1>
        {webhook.data && (
          <Button
            className={buttonClass}
            isDisabled={webhook.data.disabled}
            onPress={() => act(testWebhook(webhookId))}
          >
            Send a test
          </Button>
        )}
      </div>
      {webhook.isPending && <Loading />}
      {webhook.isError && <Notice error={webhook.error} />}
      {error !== null && <Notice error={error} />}
      {webhook.data && (
        <>
          <WebhookFacts webhook={webhook.data} />
          <Deliveries webhook={webhook.data} act={act} />
        </>
      )}
    </div>
  );
}

function WebhookFacts({ webhook }: { webhook: Webhook }) {
  return (
    <Section title="Properties">
      <Facts>
        <Fact name="State">
          <Use of={webhook} />
        </Fact>
        <Fact name="Address">
          {webhook.url} <Copy text={webhook.url} label="Copy the address" />
        </Fact>
        <Fact name="Told of">{webhook.events.join(", ")}</Fact>
        <Fact name="Runs of">{webhook.owner ?? "all owners"}</Fact>
        <Fact name="Agent">{webhook.agent_name ?? "any"}</Fact>
        <Fact name="Labels">{Object.keys(webhook.labels).length > 0 ? <Labels labels={webhook.labels} /> : "any"}</Fact>
        {webhook.description && <Fact name="Description">{webhook.description}</Fact>}
        <Fact name="Created">
          <Time at={webhook.created_at} />
        </Fact>
      </Facts>
    </Section>
  );
}

function Deliveries({ webhook, act }: { webhook: Webhook; act: (doing: Promise<void>) => void }) {
  const [state, setState] = useState<DeliveryState | undefined>(undefined);
  const log = useInfiniteQuery(deliveriesOf(webhook.webhook_id, state));
  const deliveries = log.data?.pages.flatMap((page) => page.deliveries) ?? [];
  const chips = (
    <span>
      {DELIVERY_STATES.map((each) => (
        <ToggleButton
          key={each}
          className={chipClass}
          isSelected={state === each}
          onChange={(isOn) => setState(isOn ? each : undefined)}
        >
          {each}
        </ToggleButton>
      ))}
    </span>
  );
  return (
    <Section title="Messages" aside={chips}>
      {log.isPending && <Loading />}
      {log.isError && <Notice error={log.error} />}
      {log.data && deliveries.length === 0 && (
        <Empty title={state ? `No message is ${state}` : "No message yet"}>
          One is made when a run or session ends that the webhook is told of.
        </Empty>
      )}
      {deliveries.length > 0 && (
        <Table
          label="Messages, newest first"
          heads={["Message", "Event", "About", "State", "Attempts", "Last answer", "Next attempt", "Made", "Again"]}
        >
          {deliveries.map((each) => (
            <tr key={each.event_id} data-delivery={each.event_id} data-state={each.state}>
              <td>
                <code>{each.event_id}</code>
              </td>
              <td>{each.event_type}</td>
              <td>
                <About delivery={each} />
              </td>
              <td>{each.state}</td>
              <td>{each.attempts}</td>
              <td>
                <Answer to={each} />
              </td>
              <td>{each.next_at ? <Time at={each.next_at} /> : "–"}</td>
              <td>
                <Time at={each.created_at} />
              </td>
              <td>
                <Button
                  className={quietClass}
                  isDisabled={webhook.disabled}
                  aria-label={`${againWords(each)} ${each.event_id}`}
                  onPress={() => act(replayDelivery(webhook.webhook_id, each.event_id))}
                >
                  {againWords(each)}
                </Button>
              </td>
            </tr>
          ))}
        </Table>
      )}
      {log.hasNextPage && (
        <Button className={buttonClass} onPress={() => void log.fetchNextPage()} isDisabled={log.isFetchingNextPage}>
          {log.isFetchingNextPage ? "Reading…" : "Show more"}
        </Button>
      )}
      <Link to="/webhooks" className={quietClass}>
        All webhooks
      </Link>
    </Section>
  );
}

function againWords(delivery: Delivery): string {
  return delivery.state === "pending" ? "Send now" : "Replay";
}

function About({ delivery }: { delivery: Delivery }) {
  if (delivery.run_id) {
    return <RunLink id={delivery.run_id} />;
  }
  return delivery.session_id ? <SessionLink id={delivery.session_id} /> : <>a test</>;
}

function Answer({ to: delivery }: { to: Delivery }) {
  if (!delivery.last_attempt_at) {
    return <>none yet</>;
  }
  return (
    <>
      {delivery.response_status ?? delivery.error ?? "none"}, <Time at={delivery.last_attempt_at} />
    </>
  );
}
