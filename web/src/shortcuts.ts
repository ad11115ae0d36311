// "/" goes to the search field; "g" and a letter go to a page, as the navigation says.

export function followShortcuts(): void {
  let afterG = 0;
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    const typing = target.matches("input, textarea, select, [contenteditable]");
    if (typing || event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.key === "/") {
      const search = document.querySelector<HTMLInputElement>("input[type='search']");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
      return;
    }
    if (event.key === "g") {
      afterG = event.timeStamp;
      return;
    }
    if (afterG && event.timeStamp - afterG < 1200 && /^[a-z]$/.test(event.key)) {
      document.querySelector<HTMLAnchorElement>(`a[data-key='${event.key}']`)?.click();
    }
    afterG = 0;
  });
}
