// A grid of stills: each plays under the pointer, opens with all that is known of it, and can be compared.
import { useState } from "preact/hooks";

import type { Generation } from "./api";
import { BatchDetail, BatchProgress } from "./batch";
import { CompareDialog, Dialog } from "./compare";
import { ago, seconds, usd } from "./format";
import { GenerationDetail, nameOf, Waiting } from "./generation";
import { Icon, ICONS, isWaiting, StatusBadge } from "./parts";
import { Preview } from "./player";

const MOST_COMPARED = 6;

/** `within` is what all of them have in common, and what their cards need not say. */
export function Cards({ generations, now, within }: {
  generations: Generation[];
  now: number;
  within: "airflow" | "dag" | "run" | "batch";
}) {
  const [shown, setShown] = useState<Generation | null>(null);
  const [selected, setSelected] = useState<Generation[]>([]);
  const [comparing, setComparing] = useState(false);
  const toggle = (each: Generation) => {
    const without = selected.filter((one) => keyOf(one) !== keyOf(each));
    setSelected(without.length < selected.length ? without : [...selected, each].slice(-MOST_COMPARED));
  };
  return (
    <>
      <ul class={selected.length > 0 ? "grid selecting" : "grid"}>
        {generations.map((each) => (
          <Card
            key={keyOf(each)}
            generation={each}
            now={now}
            within={within}
            selected={selected.some((one) => keyOf(one) === keyOf(each))}
            select={() => toggle(each)}
            open={() => setShown(each)}
          />
        ))}
      </ul>
      {selected.length > 0 && (
        <div class="selection" role="region" aria-label="Selection">
          <span>{selected.length} selected</span>
          <button type="button" class="button primary" disabled={selected.length < 2} onClick={() => setComparing(true)}>
            <Icon path={ICONS.compare} /> Compare side by side
          </button>
          <button type="button" class="button" onClick={() => setSelected([])}>
            Clear
          </button>
        </div>
      )}
      {comparing && <CompareDialog generations={selected} close={() => setComparing(false)} />}
      {shown && (
        <Dialog title={nameOf(shown)} close={() => setShown(null)} wide>
          {shown.batch ? <BatchDetail generation={shown} now={now} link /> : <GenerationDetail generation={shown} now={now} heading={within === "batch" ? nameOf(shown) : shown.dag_id} link={within !== "batch"} />}
        </Dialog>
      )}
    </>
  );
}

function keyOf(each: Generation): string {
  return JSON.stringify([each.dag_id, each.run_id, each.task_id, each.map_index, each.try_number, each.place, each.label]);
}

function Card({ generation: g, now, within, selected, select, open }: {
  generation: Generation;
  now: number;
  within: "airflow" | "dag" | "run" | "batch";
  selected: boolean;
  select: () => void;
  open: () => void;
}) {
  const [hovered, setHovered] = useState(false);
  const name = nameOf(g);
  const when = g.completed_at ?? g.submitted_at ?? (within === "batch" ? null : g.started_at);
  return (
    <li class={selected ? "card selected" : "card"}>
      <button
        type="button"
        class="card-picture"
        onClick={open}
        onMouseEnter={() => setHovered(true)}
        onMouseLeave={() => setHovered(false)}
        onFocus={() => setHovered(true)}
        onBlur={() => setHovered(false)}
        aria-label={`${name}: show`}
      >
        <Still generation={g} playing={hovered} now={now} />
        {g.seconds !== null && g.seconds !== undefined && g.video_url && <span class="length">{g.seconds.toFixed(0)} s</span>}
      </button>
      {g.video_url && (
        <label class="card-select">
          <input type="checkbox" checked={selected} onChange={select} aria-label={`Select ${name} to compare`} />
        </label>
      )}
      <div class="card-text">
        <p class="prompt-line" title={g.prompt}>
          {within === "batch" ? <strong>{name}</strong> : g.prompt || name}
          {within === "batch" && g.prompt && <span class="faint"> {g.prompt}</span>}
        </p>
        <p class="card-line">
          <StatusBadge status={g.status} />
          {g.cost?.usd !== null && g.cost?.usd !== undefined && <span>{usd(g.cost.usd)}</span>}
          {g.batch?.cost_usd !== null && g.batch?.cost_usd !== undefined && <span>{usd(g.batch.cost_usd)}</span>}
        </p>
        {(within !== "batch" || when) && (
          <p class="card-line faint">
            <span class="clip" title={`${g.dag_id} · ${g.run_id} · ${name}`}>
              {within === "airflow" ? `${g.dag_id} · ${name}` : within === "batch" ? g.seconds && g.waited ? `took ${seconds(g.waited)}` : "" : name}
            </span>
            {when && <time dateTime={new Date(when * 1000).toISOString()}>{ago(when, now)}</time>}
          </p>
        )}
      </div>
    </li>
  );
}

function Still({ generation: g, playing, now }: { generation: Generation; playing: boolean; now: number }) {
  const [broken, setBroken] = useState(false);
  if (g.batch) return <span class="no-still"><BatchProgress batch={g.batch} small /></span>;
  if (isWaiting(g.status)) return <Waiting generation={g} serverNow={now} small />;
  const why = broken ? "The video cannot be reached from here" : (g.failure?.message ?? (g.video_url ? "Not saved by a task; point here to play it" : ""));
  return (
    <>
      <span class="no-still">
        <Icon path={broken || g.status === "failed" ? ICONS.warn : ICONS.film} size={26} />
        {why && !(g.video && !broken) && <span class="why">{why}</span>}
      </span>
      {g.video_url && !broken && <Preview src={g.video_url} playing={playing} eager={Boolean(g.video)} failed={() => setBroken(true)} />}
    </>
  );
}
