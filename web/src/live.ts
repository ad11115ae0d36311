// Parts of a page that stay current: the same page is asked again and only those parts change.

type Start = (root: ParentNode) => Promise<void>;

export function followLive(start: Start): void {
  const parts = [...document.querySelectorAll<HTMLElement>("[data-live-seconds]")];
  if (parts.length === 0) return;
  const seconds = Math.min(...parts.map((part) => Number(part.dataset.liveSeconds)));
  const refresh = async (): Promise<void> => {
    if (document.visibilityState === "visible") {
      const answer = await fetch(location.href, { headers: { "X-Live": "1" } }).catch(() => null);
      if (answer?.ok && !answer.redirected) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll<HTMLElement>("[data-live-seconds]")) {
          replace(part, page.getElementById(part.id), start);
        }
      }
    }
    setTimeout(() => void refresh(), seconds * 1000);
  };
  setTimeout(() => void refresh(), seconds * 1000);
}

function replace(old: HTMLElement, fresh: HTMLElement | null, start: Start): void {
  // Whoever is in the middle of it with the keyboard keeps what is there.
  if (!fresh || old.contains(document.activeElement) || old.innerHTML === fresh.innerHTML) return;
  const adopted = document.adoptNode(fresh);
  old.replaceWith(adopted);
  void start(adopted);
}
