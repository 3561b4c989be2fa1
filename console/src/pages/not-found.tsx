import { Empty } from "../design/parts";

export function NotFound() {
  return (
    <Empty isPage title="There is no such page">
      The pages are in the bar above.
    </Empty>
  );
}
