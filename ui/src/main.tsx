import { render } from "preact";
import "uplot/dist/uPlot.min.css";

import type { TaskKey } from "./api";
import { GalleryPageView } from "./gallery";
import "./styles.css";
import { TaskPage } from "./task";

/** The query, with a plus sign as it is: run ids have them, and older versions of Airflow do not encode them. */
function query(): Map<string, string> {
  const pairs = window.location.search.slice(1).split("&").map((pair) => pair.split("="));
  return new Map(pairs.map(([name = "", value = ""]) => [name, decoded(value)]));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function filled(value: string | undefined): string | undefined {
  return value && !/^\{.*\}$/.test(value) ? value : undefined;
}

function App() {
  const asked = query();
  const [dag_id, run_id, task_id] = ["dag_id", "run_id", "task_id"].map((name) => filled(asked.get(name)));
  if (asked.get("view") === "task" && dag_id && run_id && task_id) {
    const task: TaskKey = { dag_id, run_id, task_id, map_index: filled(asked.get("map_index")) ?? "-1" };
    return <TaskPage task={task} />;
  }
  return <GalleryPageView scope={{ ...(dag_id ? { dag_id } : {}), ...(run_id ? { run_id } : {}) }} />;
}

const root = document.getElementById("root");
if (root) render(<App />, root);
