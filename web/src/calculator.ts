// The calculator as one types: the server rates, the page shows what it answered.

type Start = (root: ParentNode) => Promise<void>;

export function calculateLive(form: HTMLFormElement, start: Start): void {
  if (form.dataset.started) return;
  form.dataset.started = "1";
  let asked = 0;
  let timer = 0;
  const ask = async (): Promise<void> => {
    const number = ++asked;
    const result = document.getElementById("result");
    if (!result) return;
    result.setAttribute("aria-busy", "true");
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { "X-Fragment": "result" },
      body: new URLSearchParams(new FormData(form) as unknown as Record<string, string>),
    }).catch(() => null);
    if (number !== asked) return; // A later question is under way.
    result.removeAttribute("aria-busy");
    if (!answer?.ok && answer?.status !== 422) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("result");
    if (fresh) {
      const adopted = document.adoptNode(fresh);
      result.replaceWith(adopted);
      void start(adopted);
    }
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => void ask(), 150);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    void ask();
  });
}
