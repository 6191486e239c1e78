// Airflow's own choice of light or dark, which it keeps in local storage and on its root element.

function airflowDocument(): Document | null {
  try {
    return window.parent === window ? null : window.parent.document;
  } catch {
    return null; // another origin embeds the page
  }
}

function stored(): string | null {
  try {
    return window.localStorage.getItem("theme");
  } catch {
    return null;
  }
}

export function isDark(): boolean {
  const outer = airflowDocument()?.documentElement;
  if (outer?.classList.contains("dark")) return true;
  if (outer?.classList.contains("light")) return false;
  const wanted = stored();
  if (wanted === "dark" || wanted === "light") return wanted === "dark";
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The colour behind the frame, so that the page has no edge. */
function pageColour(): string {
  try {
    for (let node: Element | null = window.frameElement; node; node = node.parentElement) {
      const colour = window.parent.getComputedStyle(node).backgroundColor;
      if (colour && !/^(transparent|rgba\(.*, 0\))$/.test(colour)) return colour;
    }
  } catch {
    // another origin embeds the page
  }
  return "";
}

function apply(): void {
  const theme = isDark() ? "dark" : "light";
  const colour = pageColour();
  if (colour) document.documentElement.style.setProperty("--page", colour);
  else document.documentElement.style.removeProperty("--page");
  if (document.documentElement.dataset["theme"] === theme) return;
  document.documentElement.dataset["theme"] = theme;
  window.dispatchEvent(new Event("kling-theme"));
}

export function followTheme(): void {
  apply();
  const outer = airflowDocument()?.documentElement;
  if (outer) new MutationObserver(apply).observe(outer, { attributeFilter: ["class", "style", "data-theme"] });
  window.addEventListener("storage", apply);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
}
