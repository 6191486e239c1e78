// Links from the page, which is in a frame, to Airflow's own pages around it.
import type { Generation } from "./api";

const part = encodeURIComponent;

export function taskHref(of: Pick<Generation, "dag_id" | "run_id" | "task_id" | "map_index">, tab = "plugin/kling"): string {
  const task = `dags/${part(of.dag_id)}/runs/${part(of.run_id)}/tasks/${part(of.task_id)}`;
  const mapped = of.map_index >= 0 ? `/mapped/${of.map_index}` : "";
  return new URL(`../${task}${mapped}${tab ? `/${tab}` : ""}`, document.baseURI).pathname;
}

export function openInAirflow(event: MouseEvent): void {
  const link = event.currentTarget as HTMLAnchorElement;
  if (window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  try {
    // The frame may not navigate its parent, but the parent, of the same origin, may follow a link of its own.
    const outer = window.parent.document;
    const twin = outer.createElement("a");
    twin.href = link.href;
    outer.body.append(twin);
    twin.click();
    twin.remove();
    event.preventDefault();
  } catch {
    // another origin embeds the page: the link does what the browser allows
  }
}
