// Three plots: cost and count by day and model, waiting times against the usual, failures by reason.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";

import type { Summary } from "./api";
import { count, moment, seconds, shortModel, usd } from "./format";
import { failureName } from "./generation";

// Told apart by lightness too, for people who do not see all colours.
const LIGHT = ["#1f6feb", "#b35900", "#6f42c1", "#1a7f37", "#bf3989", "#57606a"];
const DARK = ["#79b8ff", "#ffab70", "#b392f0", "#7ee787", "#f692ce", "#a1a1aa"];
const MOST_MODELS = 5;
const OTHERS = "others";

export function Plots({ summary }: { summary: Summary }) {
  const [what, setWhat] = useState<"usd" | "count">("usd");
  return (
    <section class="plots" aria-label="Plots">
      <figure class="plot">
        <figcaption>
          <h2>Per day and model</h2>
          <span class="switch" role="group" aria-label="What is summed">
            <button type="button" aria-pressed={what === "usd"} onClick={() => setWhat("usd")}>
              Cost
            </button>
            <button type="button" aria-pressed={what === "count"} onClick={() => setWhat("count")}>
              Count
            </button>
          </span>
        </figcaption>
        <Days summary={summary} what={what} />
      </figure>
      <figure class="plot">
        <figcaption>
          <h2>Waiting time</h2>
          <span class="faint">1 is the model's usual time</span>
        </figcaption>
        {summary.waits.length > 0 ? <Waits summary={summary} /> : <p class="faint plot-empty">No video has come yet.</p>}
      </figure>
      <figure class="plot">
        <figcaption>
          <h2>Failures by reason</h2>
          <span class="faint">{count(summary.failures.reduce((sum, each) => sum + each.count, 0))}</span>
        </figcaption>
        <Failures summary={summary} />
      </figure>
    </section>
  );
}

function useDark(): boolean {
  const read = () => document.documentElement.dataset["theme"] === "dark";
  const [dark, setDark] = useState(read);
  useEffect(() => {
    const follow = () => setDark(read());
    window.addEventListener("kling-theme", follow);
    return () => window.removeEventListener("kling-theme", follow);
  }, []);
  return dark;
}

function Chart({ options, data, label }: {
  options: Omit<uPlot.Options, "width" | "height">;
  data: uPlot.AlignedData;
  label: string;
}) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const node = box.current;
    if (!node) return;
    const size = () => ({ width: Math.max(240, node.clientWidth), height: 220 });
    const chart = new uPlot({ ...options, ...size() }, data, node);
    const observer = new ResizeObserver(() => chart.setSize(size()));
    observer.observe(node);
    return () => {
      observer.disconnect();
      chart.destroy();
    };
  }, [options, data]);
  return <div class="chart" ref={box} role="img" aria-label={label} />;
}

// The least step between two labels in seconds, the label, and what stands below it where the year, the month or the day is another.
const TIMES: uPlot.Axis.Values = [
  [31_536_000, "{YYYY}", null, null, null, null, null, null, 1],
  [2_419_200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86_400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
];

function axes(dark: boolean, values: (value: number) => string): uPlot.Axis[] {
  const stroke = dark ? "#a1a1aa" : "#52525b";
  const grid = { stroke: dark ? "rgba(255,255,255,0.08)" : "rgba(0,0,0,0.07)", width: 1 };
  const font = "11px system-ui, sans-serif";
  return [
    { stroke, grid: { show: false }, ticks: { show: false }, font, space: 70, values: TIMES },
    { stroke, grid, ticks: { show: false }, font, size: 56, values: (_, splits) => splits.map(values) },
  ];
}

function Days({ summary, what }: { summary: Summary; what: "usd" | "count" }) {
  const dark = useDark();
  const { days, models, columns } = stacked(summary, what);
  const colours = dark ? DARK : LIGHT;
  const show = what === "usd" ? usd : count;
  const total = summary.by_day.reduce((sum, each) => sum + each[what], 0);
  const bars = uPlot.paths.bars?.({ size: [0.7, 40], gap: 1 });
  const options: Omit<uPlot.Options, "width" | "height"> = {
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: true, range: (_, min, max) => [min - 43_200, max + 43_200] }, y: { range: (_, __, max) => [0, max * 1.1 || 1] } },
    axes: axes(dark, (value) => (what === "usd" ? `$${value}` : String(value))),
    series: [
      {},
      // The topmost sum is drawn first, and those below it over it.
      ...models.map((_, index) => ({
        stroke: colours[index % colours.length] ?? "",
        fill: colours[index % colours.length] ?? "",
        ...(bars ? { paths: bars } : {}),
        points: { show: false },
      })),
    ],
  };
  return (
    <>
      <Chart key={`${dark} ${what} ${days.length}`} options={options} data={[days, ...columns] as uPlot.AlignedData} label={`${show(total)} in all, from ${summary.by_day[0]?.day ?? ""} on`} />
      <ul class="legend">
        {models.map((model, index) => (
          <li key={model}>
            <span class="swatch" style={{ background: colours[index % colours.length] ?? "" }} aria-hidden="true" />
            {model === OTHERS ? OTHERS : shortModel(model)}{" "}
            <span class="faint">{show(sumOf(summary, model, models, what))}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

function sumOf(summary: Summary, model: string, models: string[], what: "usd" | "count"): number {
  return summary.by_day
    .filter((each) => each.model === model || (model === OTHERS && !models.includes(each.model)))
    .reduce((sum, each) => sum + each[what], 0);
}

/** Days as epoch seconds, models with the largest sum first, and for each model the sum up to and with it. */
function stacked(summary: Summary, what: "usd" | "count"): { days: number[]; models: string[]; columns: number[][] } {
  const sums = new Map<string, number>();
  for (const each of summary.by_day) sums.set(each.model, (sums.get(each.model) ?? 0) + each[what]);
  const shown = [...sums].filter(([, sum]) => sum > 0);
  const largest = shown.sort((one, other) => other[1] - one[1]).map(([model]) => model);
  const models = largest.length > MOST_MODELS + 1 ? [...largest.slice(0, MOST_MODELS), OTHERS] : largest;
  const dates = everyDay(summary.by_day.map((each) => each.day));
  const at = new Map(dates.map((date, index) => [date, index]));
  const plain = models.map(() => dates.map(() => 0));
  for (const each of summary.by_day) {
    const row = models.includes(each.model) ? models.indexOf(each.model) : models.indexOf(OTHERS);
    const column = at.get(each.day) ?? 0;
    const values = plain[row]; // none for a model without a sum
    if (values) values[column] = (values[column] ?? 0) + each[what];
  }
  const columns = plain.map((_, row) => dates.map((__, column) => plain.slice(row).reduce((sum, values) => sum + (values[column] ?? 0), 0)));
  return { days: dates.map((date) => Date.parse(`${date}T12:00:00Z`) / 1000), models, columns };
}

/** Each day from the first to the last, and a week at least: a day without generations is a gap. */
function everyDay(days: string[]): string[] {
  const noons = days.map((day) => Date.parse(`${day}T12:00:00Z`));
  const last = Math.max(...noons);
  const first = Math.min(...noons, last - 6 * 86_400_000);
  const all: string[] = [];
  for (let noon = first; noon <= last; noon += 86_400_000) all.push(new Date(noon).toISOString().slice(0, 10));
  return all;
}

function Waits({ summary }: { summary: Summary }) {
  const dark = useDark();
  const times = summary.waits.map((each) => each.submitted_at);
  const ratios = summary.waits.map((each) => Math.round((each.seconds / each.usual_seconds) * 100) / 100);
  const colour = (dark ? DARK : LIGHT)[0] ?? "";
  const options: Omit<uPlot.Options, "width" | "height"> = {
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: true, ...(times.length === 1 ? { range: (_: uPlot, min: number) => [min - 3600, min + 3600] as [number, number] } : {}) }, y: { range: (_, __, max) => [0, Math.max(2, max * 1.1)] } },
    axes: axes(dark, (value) => `${value} ×`),
    series: [
      {},
      { stroke: colour, paths: () => null, points: { show: true, size: 6, fill: colour, width: 0 } },
      { stroke: dark ? "#d4d4d8" : "#3f3f46", width: 1, dash: [5, 4], points: { show: false } },
    ],
  };
  const sorted = [...ratios].sort((one, other) => one - other);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const last = summary.waits[summary.waits.length - 1];
  return (
    <>
      <Chart
        key={String(dark)}
        options={options}
        data={[times, ratios, times.map(() => 1)]}
        label={`Half of the videos came within ${median.toFixed(2)} times the usual time`}
      />
      <p class="faint plot-note">
        Median {median.toFixed(2)} ×{last ? `; the last took ${seconds(last.seconds)}, ${moment(last.submitted_at)}` : ""}
      </p>
    </>
  );
}

function Failures({ summary }: { summary: Summary }) {
  if (summary.failures.length === 0) return <p class="faint plot-empty">None.</p>;
  const most = Math.max(...summary.failures.map((each) => each.count));
  return (
    <ul class="bars">
      {summary.failures.map((each) => (
        <li key={each.kind}>
          <span class="bar-name">{failureName(each.kind)}</span>
          <span class="bar-line" aria-hidden="true">
            <span style={{ width: `${(each.count / most) * 100}%` }} />
          </span>
          <span class="mono">{count(each.count)}</span>
        </li>
      ))}
    </ul>
  );
}
