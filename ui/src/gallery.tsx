// The gallery: a grid of stills with filters, totals, plots and a comparison.
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";

import { type GalleryPage, type Query, readPage, readSummary, type Summary } from "./api";
import { Cards } from "./cards";
import { count, plural, seconds, shortModel, usd } from "./format";
import { Icon, ICONS, isWaiting, Notice, Pager, Skeleton, Trouble } from "./parts";
import { Plots } from "./plots";

interface Filters {
  dag_id: string;
  run_id: string;
  task_id: string;
  model: string;
  status: string;
  text: string;
  since: string;
  until: string;
  sort: string;
}

const NONE: Filters = { dag_id: "", run_id: "", task_id: "", model: "", status: "", text: "", since: "", until: "", sort: "newest" };
const REFRESH = 10_000; // milliseconds, while anything on the page is being generated

export interface Scope {
  dag_id?: string;
  run_id?: string;
}

export function GalleryPageView({ scope }: { scope: Scope }) {
  const start = useMemo(() => ({ ...NONE, dag_id: scope.dag_id ?? "", run_id: scope.run_id ?? "" }), [scope]);
  const [filters, setFilters] = useState<Filters>(start);
  const [number, setNumber] = useState(1);
  const [page, setPage] = useState<GalleryPage | null>(null);
  const [summary, setSummary] = useState<Summary | null>(null);
  const [error, setError] = useState<unknown>(null);
  const asked = useRef(0);

  const query = useMemo<Query>(() => queryOf(filters), [filters]);
  const load = useCallback(async () => {
    const turn = ++asked.current;
    try {
      const found = await readPage({ ...query, sort: filters.sort, page: number });
      if (turn !== asked.current) return;
      setPage(found);
      setError(null);
    } catch (trouble) {
      if (turn === asked.current) setError(trouble);
    }
  }, [query, filters.sort, number]);
  const total = useCallback(() => void readSummary(query).then(setSummary, () => undefined), [query]);

  useEffect(() => {
    const timer = window.setTimeout(() => void load(), 150);
    return () => window.clearTimeout(timer);
  }, [load]);
  useEffect(() => {
    const timer = window.setTimeout(total, 200);
    return () => window.clearTimeout(timer);
  }, [total]);
  useEffect(() => {
    if (!page?.generations.some((each) => isWaiting(each.status))) return;
    const timer = window.setTimeout(() => {
      if (!document.hidden) {
        void load();
        total();
      }
    }, REFRESH);
    return () => window.clearTimeout(timer);
  }, [page, load, total]);

  const change = (part: Partial<Filters>) => {
    setFilters({ ...filters, ...part });
    setNumber(1);
  };
  const filtered = JSON.stringify({ ...filters, sort: "" }) !== JSON.stringify({ ...start, sort: "" });
  return (
    <main class="page gallery">
      <header class="gallery-head">
        <h1>{scope.run_id ? "Generations of this run" : scope.dag_id ? "Generations of this DAG" : "Kling gallery"}</h1>
        <Totals summary={summary} />
      </header>
      <FilterBar filters={filters} scope={scope} summary={summary} change={change} reset={filtered ? () => change(start) : null} />
      {Boolean(error) && <Trouble error={error} retry={() => void load()} />}
      {!page && !error && <Skeleton lines={8} />}
      {page && page.generations.length === 0 && <Empty filtered={filtered} reset={() => change(start)} />}
      {page && page.generations.length > 0 && (
        <div class={page.page === number ? "cards" : "cards stale"} aria-busy={page.page !== number}>
          <Cards generations={page.generations} now={page.now} within={scope.run_id ? "run" : scope.dag_id ? "dag" : "airflow"} />
        </div>
      )}
      {page && page.pages > 1 && <Pager page={number} pages={page.pages} go={setNumber} />}
      {summary && summary.count > 0 && <Plots summary={summary} />}
    </main>
  );
}

function queryOf(filters: Filters): Query {
  const { since, until, sort: _, ...rest } = filters;
  return { ...rest, since: day(since, 0), until: day(until, 1) };
}

function day(text: string, more: number): number | undefined {
  if (!text) return undefined;
  const at = new Date(`${text}T00:00:00`);
  at.setDate(at.getDate() + more);
  return Number.isNaN(at.getTime()) ? undefined : Math.max(0, at.getTime() / 1000);
}

function Totals({ summary }: { summary: Summary | null }) {
  if (!summary) return <dl class="totals" aria-busy="true" />;
  return (
    <dl class="totals">
      <div>
        <dt>Generations</dt>
        <dd>{count(summary.count)}</dd>
      </div>
      <div>
        <dt>Video</dt>
        <dd>{seconds(summary.seconds)}</dd>
      </div>
      <div>
        <dt>Cost</dt>
        <dd title={summary.usd_unknown ? `The cost of ${plural(summary.usd_unknown, "generation")} is not known` : ""}>
          {usd(summary.usd)}
          {summary.usd_unknown > 0 && <span class="faint"> + {summary.usd_unknown} unknown</span>}
        </dd>
      </div>
    </dl>
  );
}

function FilterBar({ filters, scope, summary, change, reset }: {
  filters: Filters;
  scope: Scope;
  summary: Summary | null;
  change: (part: Partial<Filters>) => void;
  reset: (() => void) | null;
}) {
  const facets = summary?.facets;
  return (
    <form class="filters" role="search" aria-label="Filters" onSubmit={(event) => event.preventDefault()}>
      <label class="search">
        <span>Prompt</span>
        <input type="search" value={filters.text} maxLength={500} placeholder="Words in the prompt" onInput={(event) => change({ text: event.currentTarget.value })} />
      </label>
      {!scope.dag_id && <Choose name="DAG" value={filters.dag_id} from={facets?.dags} change={(dag_id) => change({ dag_id })} />}
      {!scope.run_id && (
        <label>
          <span>Run</span>
          <input type="text" value={filters.run_id} placeholder="Run id" onInput={(event) => change({ run_id: event.currentTarget.value })} />
        </label>
      )}
      <Choose name="Task" value={filters.task_id} from={facets?.tasks} change={(task_id) => change({ task_id })} />
      <Choose name="Model" value={filters.model} from={facets?.models} label={shortModel} change={(model) => change({ model })} />
      <Choose
        name="Status"
        value={filters.status}
        from={["waiting", "completed", "failed"]}
        change={(status) => change({ status })}
      />
      <label>
        <span>From</span>
        <input type="date" value={filters.since} onInput={(event) => change({ since: event.currentTarget.value })} />
      </label>
      <label>
        <span>To</span>
        <input type="date" value={filters.until} onInput={(event) => change({ until: event.currentTarget.value })} />
      </label>
      <label>
        <span>Sort by</span>
        <select value={filters.sort} onChange={(event) => change({ sort: event.currentTarget.value })}>
          <option value="newest">Newest</option>
          <option value="oldest">Oldest</option>
          <option value="dearest">Highest cost</option>
          <option value="cheapest">Lowest cost</option>
        </select>
      </label>
      {reset && (
        <button type="button" class="button" onClick={reset}>
          <Icon path={ICONS.restart} /> Reset
        </button>
      )}
    </form>
  );
}

function Choose({ name, value, from, change, label = (each) => each }: {
  name: string;
  value: string;
  from: string[] | undefined;
  change: (value: string) => void;
  label?: (value: string) => string;
}) {
  const options = from ?? [];
  return (
    <label>
      <span>{name}</span>
      <select value={value} onChange={(event) => change(event.currentTarget.value)}>
        <option value="">All</option>
        {value && !options.includes(value) && <option value={value}>{label(value)}</option>}
        {options.map((each) => (
          <option key={each} value={each}>
            {label(each)}
          </option>
        ))}
      </select>
    </label>
  );
}

function Empty({ filtered, reset }: { filtered: boolean; reset: () => void }) {
  if (!filtered) {
    return (
      <Notice title="No generations yet">
        <p>As soon as a task of this provider submits a generation, it is shown here.</p>
      </Notice>
    );
  }
  return (
    <Notice title="No generation matches these filters">
      <button type="button" class="button" onClick={reset}>
        Reset the filters
      </button>
    </Notice>
  );
}
