// What the page asks: the app's own routes, and Airflow's REST API beside it. Addresses are relative to the
// page, so that a path prefix of the API server does not matter.
import type { components } from "./schema";

export type Generation = components["schemas"]["Generation"];
export type TaskView = components["schemas"]["TaskView"];
export type TaskAttempt = components["schemas"]["TaskAttempt"];
export type GalleryPage = components["schemas"]["GalleryPage"];
export type Summary = components["schemas"]["Summary"];
export type Batch = components["schemas"]["Batch"];
export type RowsPage = components["schemas"]["RowsPage"];
export type RowStatus = "saved" | "reused" | "failed" | "invalid" | "submitted" | "uncertain" | "pending";
export type Picture = components["schemas"]["Picture"];

export interface TaskKey {
  dag_id: string;
  run_id: string;
  task_id: string;
  map_index: string;
}

export interface Question {
  subject: string;
  body: string | null;
  options: string[];
  multiple: boolean;
  defaults: string[] | null;
  chosen_options: string[] | null;
  responded_at: string | null;
  responded_by_user: { id: string; name: string } | null;
  response_received: boolean;
  params: Record<string, unknown>;
  params_input: Record<string, unknown>;
  assigned_users: { id: string; name: string }[];
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(detail);
  }
}

async function call<T>(url: string, init: RequestInit = {}): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(url, { credentials: "same-origin", ...init });
  } catch {
    throw new ApiError(0, "Airflow's API server does not answer.");
  }
  const text = await answer.text();
  let body: unknown = null;
  try {
    body = JSON.parse(text);
  } catch {
    // not JSON: only the status counts
  }
  if (!answer.ok) throw new ApiError(answer.status, detailOf(body) ?? answer.statusText);
  return body as T;
}

function detailOf(body: unknown): string | null {
  if (typeof body !== "object" || body === null || !("detail" in body)) return null;
  const detail = body.detail;
  if (typeof detail === "string") return detail;
  return Array.isArray(detail) ? detail.map((each: { msg?: string }) => each.msg ?? "").join("; ") : null;
}

const part = encodeURIComponent;

function taskPath(key: TaskKey): string {
  return `api/dags/${part(key.dag_id)}/runs/${part(key.run_id)}/tasks/${part(key.task_id)}/${part(key.map_index)}`;
}

export function readTask(key: TaskKey): Promise<TaskView> {
  return call(taskPath(key));
}

export type Query = Record<string, string | number | undefined>;

function queryString(query: Query): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  return pairs.map(([name, value]) => `${name}=${part(String(value))}`).join("&");
}

export function readPage(query: Query): Promise<GalleryPage> {
  return call(`api/generations?${queryString(query)}`);
}

export function readSummary(query: Query): Promise<Summary> {
  return call(`api/summary?${queryString(query)}`);
}

export function readRows(url: string, query: Query): Promise<RowsPage> {
  return call(`${url}?${queryString(query)}`);
}

function questionPath(view: TaskView): string {
  const run = `../api/v2/dags/${part(view.dag_id)}/dagRuns/${part(view.run_id)}`;
  return `${run}/taskInstances/${part(view.task_id)}/${view.map_index}/hitlDetails`;
}

export function readQuestion(view: TaskView): Promise<Question> {
  return call(questionPath(view));
}

export function answerQuestion(
  view: TaskView,
  chosen: string[],
  input: Record<string, unknown>,
): Promise<unknown> {
  return call(questionPath(view), {
    method: "PATCH",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ chosen_options: chosen, params_input: input }),
  });
}

export async function whyNoVideo(url: string): Promise<string> {
  try {
    await call(url, { headers: { Range: "bytes=0-0" } });
  } catch (error) {
    if (error instanceof ApiError) return error.detail;
  }
  return "Your browser cannot play it.";
}
