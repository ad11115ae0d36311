// The balance of a pool as it changes: server-sent events put exact texts where the page has them.

interface Balance {
  [name: string]: string | Balance | null;
}

const followed = new WeakSet<HTMLElement>();

export function followBalance(element: HTMLElement): void {
  const { source: address } = element.dataset;
  if (!address || followed.has(element)) return;
  followed.add(element);
  let source: EventSource | null = null;
  const listen = (): void => {
    source ??= open(element, address);
  };
  const leave = (): void => {
    source?.close();
    source = null;
  };
  // A browser has few connections to a server: a page that nobody looks at keeps none.
  const follow = (): void => (document.visibilityState === "visible" ? listen() : leave());
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", leave);
  addEventListener("pageshow", follow);
  follow();
}

function open(element: HTMLElement, address: string): EventSource {
  const source = new EventSource(address);
  source.addEventListener("balance", (event) => {
    show(element, JSON.parse((event as MessageEvent<string>).data) as Balance);
    state(element, "live", "accepted");
  });
  // The browser tries again by itself, unless the server said no.
  source.addEventListener("error", () => {
    state(element, source.readyState === EventSource.CLOSED ? "not live" : "reconnecting", "warn");
  });
  return source;
}

function show(element: HTMLElement, balance: Balance): void {
  for (const place of element.querySelectorAll<HTMLElement>("[data-value]")) {
    const text = place.dataset.value!.split(".").reduce<string | Balance | null>((at, name) => (at as Balance | null)?.[name] ?? null, balance);
    if (typeof text === "string") place.textContent = grouped(text);
  }
  const whole = Number(balance.capacity);
  const share = (text: string | Balance | null | undefined): number => (whole > 0 ? Math.min(100, (Number(text) / whole) * 100) : 0);
  const have = Math.max(0, share(balance.available));
  set(element, ".gauge .have", { width: have });
  set(element, ".gauge .held", { x: have, width: Math.min(100 - have, share(balance.held)) });
}

function set(element: HTMLElement, selector: string, values: Record<string, number>): void {
  const rectangle = element.querySelector(selector);
  for (const [name, value] of Object.entries(values)) rectangle?.setAttribute(name, value.toFixed(1));
}

function state(element: HTMLElement, word: string, tone: string): void {
  const pill = element.querySelector<HTMLElement>("[data-state]");
  if (!pill || pill.textContent === word) return;
  pill.textContent = word;
  pill.className = `pill ${tone}`;
}

// As the server writes numbers: every digit, in groups of three.
function grouped(text: string): string {
  const [whole = "", part] = text.replace("-", "").split(".");
  const digits = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  const rest = part?.replace(/0+$/, "");
  return `${text.startsWith("-") ? "\u2212" : ""}${digits}${rest ? `.${rest}` : ""}`;
}
