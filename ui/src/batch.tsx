// A batch: how far it is, and its rows page by page.
import { useCallback, useEffect, useState } from "preact/hooks";

import { openInAirflow, taskHref } from "./airflow";
import { type Batch, type Generation, readRows, type RowsPage, type RowStatus } from "./api";
import { Cards } from "./cards";
import { ago, count, moment, plural, seconds, usd } from "./format";
import { Copyable, Fact, FailureText } from "./generation";
import { Icon, ICONS, Notice, Pager, Skeleton, StatusBadge, Trouble, useNow } from "./parts";

interface Kind {
  name: string;
  tone: "good" | "kept" | "busy" | "bad" | "odd" | "rest";
}

// In the order of the bar: what is done, what is under way, what has no video, what is to come.
const KINDS: Record<RowStatus, Kind> = {
  saved: { name: "saved", tone: "good" },
  reused: { name: "unchanged", tone: "kept" },
  submitted: { name: "generating", tone: "busy" },
  uncertain: { name: "being searched for", tone: "odd" },
  failed: { name: "failed", tone: "bad" },
  invalid: { name: "invalid", tone: "odd" },
  pending: { name: "not submitted", tone: "rest" },
};
const STATUSES = Object.keys(KINDS) as RowStatus[];

export function BatchDetail({ generation: g, now, link = false }: { generation: Generation; now: number; link?: boolean }) {
  const batch = g.batch as Batch;
  return (
    <article class="batch" aria-label={`Batch of ${g.task_id}`}>
      <header class="about-head">
        <h2>{plural(batch.total, "row")}</h2>
        <StatusBadge status={g.status} />
        {link && (
          <a class="button" href={taskHref(g)} onClick={openInAirflow}>
            <Icon path={ICONS.open} /> Open the task
          </a>
        )}
      </header>
      <BatchProgress batch={batch} />
      <BatchFacts batch={batch} serverNow={now} />
      {g.failure ? <FailureText generation={g} /> : g.status === "failed" && <Failed generation={g} />}
      <Rows batch={batch} />
    </article>
  );
}

function Failed({ generation }: { generation: Generation }) {
  return (
    <Notice title="The task failed" tone="error">
      <p>
        A retry or a clear of the task continues: it submits only rows that failed or were not submitted, and pays for no video twice.{" "}
        <a href={taskHref(generation, "")} onClick={openInAirflow}>
          Its log
        </a>{" "}
        says why it failed.
      </p>
    </Notice>
  );
}

export function BatchProgress({ batch, small = false }: { batch: Batch; small?: boolean }) {
  const total = Math.max(1, batch.total);
  const done = of(batch, "saved") + of(batch, "reused");
  const shown = STATUSES.filter((status) => of(batch, status) > 0);
  const text = shown.map((status) => `${count(of(batch, status))} ${KINDS[status].name}`).join(", ");
  return (
    <div class={small ? "batch-progress small" : "batch-progress"}>
      {small && <span class="batch-done">{count(done)} of {plural(batch.total, "row")}</span>}
      <div class="stack" role="progressbar" aria-label="Rows that are done" aria-valuemin={0} aria-valuemax={batch.total} aria-valuenow={done} aria-valuetext={text}>
        {shown.map((status) => (
          <span key={status} class={`tone-${KINDS[status].tone}`} style={{ width: `${(of(batch, status) / total) * 100}%` }} />
        ))}
      </div>
      {!small && (
        <ul class="stack-legend">
          {shown.map((status) => (
            <li key={status}>
              <span class={`swatch tone-${KINDS[status].tone}`} aria-hidden="true" />
              <strong>{count(of(batch, status))}</strong> {KINDS[status].name}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function of(batch: Batch, status: RowStatus): number {
  return batch.counts[status] ?? 0;
}

function BatchFacts({ batch, serverNow }: { batch: Batch; serverNow: number }) {
  const now = useNow(serverNow, 1000);
  const left = batch.estimated_end ? batch.estimated_end - now : null;
  return (
    <dl class="facts">
      {batch.cost_usd !== null && batch.cost_usd !== undefined && <Fact name="Cost"><strong>{usd(batch.cost_usd)}</strong></Fact>}
      {batch.seconds ? <Fact name="Video">{seconds(batch.seconds)}</Fact> : null}
      {!batch.finished && left !== null && <Fact name="Ends in about">{left > 0 ? seconds(left) : "a moment"}</Fact>}
      {!batch.finished && batch.updated_at && <Fact name="As of"><span title={moment(batch.updated_at)}>{ago(batch.updated_at, now)}</span></Fact>}
      {batch.finished && batch.manifest && <Fact name="Manifest" wide><Copyable text={batch.manifest} what="the path of the manifest" /></Fact>}
    </dl>
  );
}

function Rows({ batch }: { batch: Batch }) {
  const [status, setStatus] = useState<RowStatus | "">("");
  const [text, setText] = useState("");
  const [number, setNumber] = useState(1);
  const [page, setPage] = useState<RowsPage | null>(null);
  const [error, setError] = useState<unknown>(null);
  // What the task says of the batch changes with its rows, so that they are read again then.
  const version = JSON.stringify(batch.counts) + batch.finished + batch.updated_at;

  const load = useCallback(() => {
    let current = true;
    readRows(batch.rows_url, { status, text, page: number }).then(
      (found) => {
        if (!current) return;
        setPage(found);
        setError(null);
      },
      (trouble: unknown) => {
        if (current) setError(trouble);
      },
    );
    return () => {
      current = false;
    };
  }, [batch.rows_url, status, text, number, version]);
  useEffect(() => {
    let cancel = () => {};
    const timer = window.setTimeout(() => (cancel = load()), text ? 200 : 0);
    return () => {
      window.clearTimeout(timer);
      cancel();
    };
  }, [load]);

  const there = STATUSES.filter((each) => of(batch, each) > 0);
  return (
    <section class="rows" aria-label="Rows">
      <form class="filters" role="search" aria-label="Rows to show" onSubmit={(event) => event.preventDefault()}>
        <label class="search">
          <span>Key</span>
          <input
            type="search"
            value={text}
            maxLength={200}
            placeholder="Part of a row's key"
            onInput={(event) => {
              setText(event.currentTarget.value);
              setNumber(1);
            }}
          />
        </label>
        {batch.finished && there.length > 1 && (
          <label>
            <span>Status</span>
            <select
              value={status}
              onChange={(event) => {
                setStatus(event.currentTarget.value as RowStatus | "");
                setNumber(1);
              }}
            >
              <option value="">All</option>
              {there.map((each) => (
                <option key={each} value={each}>
                  {KINDS[each].name} ({count(of(batch, each))})
                </option>
              ))}
            </select>
          </label>
        )}
        {page && !page.complete && <p class="faint rows-note">The latest rows first; those that are not submitted yet are not listed.</p>}
      </form>
      {Boolean(error) && <Trouble error={error} retry={load} />}
      {!page && !error && <Skeleton lines={4} />}
      {page && !error && page.rows.length === 0 && (
        <Notice title={text || status ? "No row matches" : "No row was submitted yet"} />
      )}
      {page && !error && page.rows.length > 0 && (
        <div class={page.page === number ? "cards" : "cards stale"} aria-busy={page.page !== number}>
          <Cards generations={page.rows} now={page.now} within="batch" />
        </div>
      )}
      {page && !error && page.pages > 1 && <Pager page={number} pages={page.pages} go={setNumber} />}
    </section>
  );
}
