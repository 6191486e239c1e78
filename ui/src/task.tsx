// The tab of a task instance.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { openInAirflow, taskHref } from "./airflow";
import { readTask, type TaskAttempt, type TaskKey, type TaskView } from "./api";
import { BatchDetail } from "./batch";
import { Choice } from "./choice";
import { CompareDialog } from "./compare";
import { moment, plural, seconds } from "./format";
import { GenerationDetail, nameOf } from "./generation";
import { Icon, ICONS, Notice, Skeleton, Trouble } from "./parts";

const REFRESH = 3000; // milliseconds, while anything goes on

export function TaskPage({ task }: { task: TaskKey }) {
  const [view, setView] = useState<TaskView | null>(null);
  const [error, setError] = useState<unknown>(null);
  const timer = useRef<number | undefined>(undefined);

  const load = useCallback(async () => {
    window.clearTimeout(timer.current);
    try {
      const found = await readTask(task);
      setView((known) => (known && sameBut(known, found) ? known : found));
      setError(null);
      if (found.going_on) timer.current = window.setTimeout(() => void load(), document.hidden ? REFRESH * 5 : REFRESH);
    } catch (trouble) {
      setError(trouble);
    }
  }, [task]);

  useEffect(() => {
    void load();
    return () => window.clearTimeout(timer.current);
  }, [load]);

  if (error && !view) {
    return (
      <main class="page">
        <h1 class="unseen">Kling: {task.task_id}</h1>
        <Trouble error={error} retry={() => void load()} />
      </main>
    );
  }
  if (!view) return <Skeleton lines={6} />;
  return (
    <main class="page">
      <h1 class="unseen">Kling: {view.task_id}</h1>
      {Boolean(error) && <Trouble error={error} retry={() => void load()} />}
      <Content view={view} reload={() => void load()} />
    </main>
  );
}

/** Whether nothing but the clock has changed, so that no video begins anew. */
function sameBut(one: TaskView, other: TaskView): boolean {
  return JSON.stringify({ ...one, now: 0 }) === JSON.stringify({ ...other, now: 0 });
}

function Content({ view, reload }: { view: TaskView; reload: () => void }) {
  const [comparing, setComparing] = useState(false);
  if (view.kind === "other") return <p class="quiet-line">This task has no Kling generation.</p>;
  if (view.kind === "choice") return <Choice view={view} reload={reload} />;
  const current = view.attempts.find((each) => each.current)?.try_number;
  const playable = view.generations.filter((each) => each.video_url);
  const failed = view.generations.some((each) => each.status === "failed" && !each.failure && !each.batch);
  return (
    <>
      {view.generations.length > 1 && (
        <div class="bar">
          <p>{summaryOf(view)}</p>
          {playable.length > 1 && (
            <button type="button" class="button" onClick={() => setComparing(true)}>
              <Icon path={ICONS.compare} /> Compare side by side
            </button>
          )}
        </div>
      )}
      {comparing && <CompareDialog generations={playable} close={() => setComparing(false)} />}
      {view.generations.map((each) => each.batch ? (
        <BatchDetail key={`batch ${each.try_number}`} generation={each} now={view.now} />
      ) : (
        <GenerationDetail
          key={`${each.task_id} ${each.try_number} ${each.place ?? ""} ${each.map_index}`}
          generation={each}
          now={view.now}
          heading={each.try_number === current || each.task_id !== view.task_id ? nameOf(each) : `${nameOf(each)} · attempt ${each.try_number}`}
        />
      ))}
      {failed && (
        <Notice title="The task failed before anything was recorded">
          <p>
            Its log says why.{" "}
            <a href={taskHref({ ...view }, "")} onClick={openInAirflow}>
              Open the log
            </a>
          </p>
        </Notice>
      )}
      <Attempts attempts={view.attempts} now={view.now} />
    </>
  );
}

function summaryOf(view: TaskView): string {
  const counts = new Map<string, number>();
  for (const { status } of view.generations) counts.set(status, (counts.get(status) ?? 0) + 1);
  const parts = [...counts].map(([status, count]) => `${count} ${status}`);
  return `${plural(view.generations.length, "generation")}: ${parts.join(", ")}`;
}

export function Attempts({ attempts, now }: { attempts: TaskAttempt[]; now: number }) {
  return (
    <details class="attempts" open={attempts.length > 1}>
      <summary>{plural(attempts.length, "attempt")}</summary>
      <div class="scroll" tabIndex={0} role="region" aria-label="Attempts">
        <table>
          <thead>
            <tr>
              <th scope="col">Attempt</th>
              <th scope="col">State</th>
              <th scope="col">Started</th>
              <th scope="col">Lasted</th>
            </tr>
          </thead>
          <tbody>
            {attempts.map((each) => (
              <tr key={each.try_number}>
                <td>{each.try_number}</td>
                <td>
                  <span class={`badge state-${each.state ?? "none"}`}>
                    <span class="dot" aria-hidden="true" />
                    {(each.state ?? "no state").replaceAll("_", " ")}
                  </span>
                </td>
                <td>{each.started_at ? moment(each.started_at) : "not yet"}</td>
                <td>{each.started_at ? seconds((each.ended_at ?? now) - each.started_at) : ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
