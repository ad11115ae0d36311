// Charts with uPlot. The numbers come with the page as exact text; only drawing turns them into
// floating point. The table beside each chart says the same for those who do not see it.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

interface Data {
  kind: "bars" | "lines" | "steps";
  x: (string | number)[];
  x_is_time: boolean;
  span: [number, number] | null;
  timezone: string;
  unit: string;
  series: { label: string; values: (string | null)[]; axis?: "right" }[];
}

const drawn = new WeakSet<HTMLElement>();

export function drawChart(element: HTMLElement): void {
  const source = element.querySelector("script[type='application/json']");
  if (drawn.has(element) || !source?.textContent) return;
  drawn.add(element);
  const data = JSON.parse(source.textContent) as Data;
  const paint = (): uPlot => draw(element, data);
  let plot = paint();
  new ResizeObserver(() => {
    const width = element.clientWidth;
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: height(element) });
  }).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    plot.destroy();
    plot = paint();
  });
}

const height = (element: HTMLElement): number => (element.clientWidth < 480 ? 200 : 260);

function draw(element: HTMLElement, data: Data): uPlot {
  const style = getComputedStyle(element);
  const color = resolver(element);
  const numbers = data.series.map((one) =>
    one.values.map((value) => (value === null ? null : Number(value))),
  );
  const stacked = data.kind === "bars" ? stack(numbers) : numbers;
  const axis = { stroke: color("--ink-3"), font: `11px ${style.fontFamily}`, ticks: { show: false } };
  const grid = { stroke: color("--line"), width: 1 };
  const bars = uPlot.paths.bars!({ size: [0.72, 48], radius: data.series.length > 1 ? 0 : 0.12 });
  const steps = uPlot.paths.stepped!({ align: 1 });
  const right = data.series.some((one) => one.axis === "right");
  // The last of a stack is drawn first, so that every lower one covers it down to the ground.
  const order = data.kind === "bars" ? data.series.map((_, at) => at).reverse() : data.series.map((_, at) => at);
  const options: uPlot.Options = {
    width: element.clientWidth,
    height: height(element),
    padding: [12, right ? 0 : data.x_is_time ? 24 : 8, 0, 0],
    cursor: { y: false, points: { show: data.kind !== "bars" } },
    legend: {
      live: true,
      markers: { width: 0, fill: (_, at) => (at === 0 ? "transparent" : color(`--series-${(order[at - 1]! % 8) + 1}`)) },
    },
    scales: {
      x: { time: data.x_is_time, range: (_, low, high) => padded(data, low, high) },
      y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.06 : 1] },
      right: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.12 : 1] },
    },
    tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1000), data.timezone),
    axes: [
      { ...axis, grid: { show: false }, values: (_, all) => all.map(data.x_is_time ? clock(all, data.timezone) : compact) },
      { ...axis, grid, size: 58, values: (_, all) => all.map(compact) },
      ...(right
        ? [{ ...axis, scale: "right", side: 1 as const, grid: { show: false }, size: 58, values: (_: uPlot, all: number[]) => all.map(compact) }]
        : []),
    ],
    series: [
      { label: data.x_is_time ? "Time" : "Quantity", value: (_, at) => (at === null ? "–" : data.x_is_time ? moment(at, data.timezone) : group(String(at))) },
      ...order.map((at) => ({
        label: data.series[at]!.label,
        scale: data.series[at]!.axis ?? "y",
        stroke: color(`--series-${(at % 8) + 1}`),
        width: data.kind === "bars" ? 0 : 2,
        pxAlign: data.kind === "bars" ? 1 : 0,
        fill: data.kind === "bars" ? color(`--series-${(at % 8) + 1}`) : undefined,
        paths: data.kind === "bars" ? bars : data.kind === "steps" ? steps : undefined,
        // A line of one point has no length, and steps end by a dot: it stands at what there is now.
        points: { show: data.kind === "lines" && data.x.length === 1, filter: () => (data.kind === "steps" ? [data.x.length - 1] : null), size: 8, fill: color(`--series-${(at % 8) + 1}`) },
        value: (_: uPlot, __: number, ___: number, index: number | null) => {
          const text = index === null ? null : data.series[at]!.values[index];
          return text === null || text === undefined ? "–" : group(text);
        },
      })),
    ],
  };
  const x = data.x.map((value) => Number(value));
  const plot = new uPlot(options, [x, ...order.map((at) => stacked[at]!)] as uPlot.AlignedData, element);
  // The legend reads in the order of the page, whatever was drawn first.
  element.querySelectorAll<HTMLElement>(".u-legend .u-series").forEach((row, at) => {
    row.style.order = String(at === 0 ? 0 : order[at - 1]! + 1);
  });
  return plot;
}

// A canvas knows no custom properties and no light-dark(): a hidden element works colours out.
function resolver(element: HTMLElement): (name: string) => string {
  return (name) => {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    element.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
}

// Bars stand on their instants, so the first and the last need half of their width more. A line of
// one point has no width at all.
function padded(data: Data, low: number, high: number): [number, number] {
  if (data.span) return data.span;
  if (data.kind !== "bars" && low < high) return [low, high];
  const half = data.x.length > 1 ? (Number(data.x[1]) - Number(data.x[0])) / 2 : 1800;
  return [low - half, high + half];
}

function stack(series: (number | null)[][]): number[][] {
  const ground = new Array<number>(series[0]?.length ?? 0).fill(0);
  return series.map((values) =>
    values.map((value, at) => {
      ground[at] = ground[at]! + (value ?? 0);
      return ground[at]!;
    }),
  );
}

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const compact = (value: number): string => short.format(value);

// The exact text, not the number it was drawn from.
function group(text: string): string {
  const [whole = "", part] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return part ? `${grouped}.${part}` : grouped;
}

// As few words as tell the marks of an axis apart.
function clock(marks: number[], timezone: string): (stamp: number) => string {
  const step = (marks[1] ?? 0) - (marks[0] ?? 0);
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: timezone });
  const month = new Intl.DateTimeFormat("en-GB", { month: "short", year: "2-digit", timeZone: timezone });
  const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: timezone });
  return (stamp) => {
    const time = stamp * 1000;
    if (step >= 2_400_000) return month.format(time);
    if (step >= 86_000) return day.format(time);
    const text = hour.format(time);
    return text === "00:00" ? day.format(time) : text;
  };
}

function moment(stamp: number, timezone: string): string {
  return new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: timezone }).format(stamp * 1000);
}
