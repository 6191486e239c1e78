// Small parts that all views share.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, type Generation } from "./api";
import { count } from "./format";

export function Icon({ path, size = 16 }: { path: string; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={path} />
    </svg>
  );
}

export const ICONS = {
  copy: "M9 9h10v11H9zM5 15V4h10",
  check: "M4 12.5l5 5L20 6.5",
  download: "M12 4v11m-5-5 5 5 5-5M4 20h16",
  play: "M8 5.5v13l11-6.5z",
  pause: "M8 5v14M16 5v14",
  open: "M14 4h6v6M20 4l-9 9M10 5H5v14h14v-5",
  close: "M6 6l12 12M18 6L6 18",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  film: "M3 5h18v14H3zM7 5v14M17 5v14M3 9.7h4M3 14.3h4M17 9.7h4M17 14.3h4",
  warn: "M12 4 2.8 19.5h18.4zM12 10v4.5M12 17.2v.1",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  restart: "M5 12a7 7 0 1 0 2.3-5.2M5 4v4h4",
} as const;

export function Copy({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      copyOverSelection(text); // a frame, or plain http, may not use the clipboard
    }
    setCopied(true);
    window.setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" class="quiet" onClick={() => void copy()} aria-label={`Copy ${what}`} title={`Copy ${what}`}>
      <Icon path={copied ? ICONS.check : ICONS.copy} size={14} />
      <span class="unseen" role="status">
        {copied ? "Copied" : ""}
      </span>
    </button>
  );
}

function copyOverSelection(text: string): void {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

type Status = Generation["status"];

const STATUS_WORDS: Record<Status, string> = {
  queued: "Queued",
  submitting: "Submitting",
  generating: "Generating",
  retrying: "Waiting for a retry",
  submitted: "Submitted",
  completed: "Completed",
  saved: "Saved",
  failed: "Failed",
  reused: "Unchanged",
  invalid: "Invalid",
  uncertain: "Being searched for",
  pending: "Not submitted",
};

export function StatusBadge({ status }: { status: Status }) {
  return (
    <span class={`badge status-${status}`}>
      <span class="dot" aria-hidden="true" />
      {STATUS_WORDS[status]}
    </span>
  );
}

export function isWaiting(status: Status): boolean {
  return ["queued", "submitting", "generating", "retrying"].includes(status);
}

export function Notice({ title, children, tone = "plain" }: {
  title: string;
  children?: ComponentChildren;
  tone?: "plain" | "error";
}) {
  return (
    <div class={`notice ${tone}`} role={tone === "error" ? "alert" : "status"}>
      <Icon path={tone === "error" ? ICONS.warn : ICONS.film} size={28} />
      <div>
        <p class="notice-title">{title}</p>
        {children && <div class="notice-text">{children}</div>}
      </div>
    </div>
  );
}

export function Trouble({ error, retry }: { error: unknown; retry: () => void }) {
  const status = error instanceof ApiError ? error.status : -1;
  const titles: Record<number, string> = {
    401: "You are not logged in any more",
    403: "You may not see this",
    404: "Nothing is here",
    0: "No answer",
  };
  const advice: Record<number, string> = {
    401: "Log in to Airflow again; this tab then works as before.",
    403: "Your Airflow account may not read the XComs of this DAG. Ask an administrator for that permission.",
    404: "Airflow knows no such task instance. It may have been cleared away.",
    0: "Airflow's API server does not answer. The page tries again when you ask it to.",
  };
  return (
    <Notice title={titles[status] ?? "Something went wrong"} tone="error">
      <p>{advice[status] ?? (error instanceof Error ? error.message : String(error))}</p>
      <button type="button" class="button" onClick={retry}>
        Try again
      </button>
    </Notice>
  );
}

export function Pager({ page, pages, go }: { page: number; pages: number; go: (page: number) => void }) {
  return (
    <nav class="pager" aria-label="Pages">
      <button type="button" class="button" disabled={page <= 1} onClick={() => go(page - 1)}>
        <Icon path={ICONS.left} /> Previous
      </button>
      <span>
        Page {count(page)} of {count(pages)}
      </span>
      <button type="button" class="button" disabled={page >= pages} onClick={() => go(page + 1)}>
        Next <Icon path={ICONS.right} />
      </button>
    </nav>
  );
}

export function Skeleton({ lines }: { lines: number }) {
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, line) => (
        <span key={line} />
      ))}
    </div>
  );
}

/** The time in epoch seconds by the server's clock, every so often. */
export function useNow(serverNow: number, every: number): number {
  const [offset] = useState(() => serverNow - Date.now() / 1000);
  const [now, setNow] = useState(serverNow);
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now() / 1000 + offset), every);
    return () => window.clearInterval(timer);
  }, [offset, every]);
  return now;
}
