// Small additions to pages that work without them: charts, live values, shortcuts.
import "./font.css";
import { followLive } from "./live";
import { followShortcuts } from "./shortcuts";

async function start(root: ParentNode): Promise<void> {
  for (const element of root.querySelectorAll<HTMLElement>("[data-island='chart']")) {
    const { drawChart } = await import("./chart");
    drawChart(element);
  }
  for (const form of root.querySelectorAll<HTMLFormElement>("form[data-island='calculator']")) {
    const { calculateLive } = await import("./calculator");
    calculateLive(form, start);
  }
  for (const element of root.querySelectorAll<HTMLElement>("[data-island='balance']")) {
    const { followBalance } = await import("./balance");
    followBalance(element);
  }
  for (const select of root.querySelectorAll<HTMLElement>("form[data-submit-on-change]")) {
    select.addEventListener("change", () => (select as HTMLFormElement).requestSubmit());
  }
}

void start(document);
followLive(start);
followShortcuts();
