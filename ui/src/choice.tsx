// Choosing: the variants side by side, each with the button of its option, answered through Airflow's own API.
import { useCallback, useEffect, useState } from "preact/hooks";

import { answerQuestion, ApiError, type Generation, type Question, readQuestion, type TaskView } from "./api";
import { shortModel, usd } from "./format";
import { Facts, nameOf, Waiting } from "./generation";
import { Icon, ICONS, isWaiting, Notice, Skeleton, StatusBadge, Trouble } from "./parts";
import { EnsembleControls, EnsembleVideo, useEnsemble } from "./player";

/** Which generation an option means: one that it names, or the one at its place in the list. */
export function optionsOf(question: Pick<Question, "options">, generations: Generation[]): (string | null)[] {
  const names = (each: Generation) => [each.generation_id, each.video?.path, each.label];
  const named = generations.map((each) => question.options.find((option) => names(each).includes(option)) ?? null);
  if (named.some((option) => option !== null)) return named;
  if (question.options.length < generations.length) return generations.map(() => null);
  return generations.map((_, index) => question.options[index] ?? null);
}

export function Choice({ view, reload }: { view: TaskView; reload: () => void }) {
  const [question, setQuestion] = useState<Question | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [sending, setSending] = useState<string | null>(null);
  const [refusal, setRefusal] = useState<string | null>(null);
  const [marked, setMarked] = useState<string[]>([]);
  const [input, setInput] = useState<Record<string, unknown>>({});
  const ensemble = useEnsemble();

  const load = useCallback(async () => {
    try {
      setQuestion(await readQuestion(view));
      setError(null);
    } catch (trouble) {
      setError(trouble);
    }
  }, [view.dag_id, view.run_id, view.task_id, view.map_index, view.state]);
  useEffect(() => void load(), [load]);

  const answer = async (options: string[]) => {
    setSending(options.join(", "));
    setRefusal(null);
    try {
      await answerQuestion(view, options, input);
    } catch (trouble) {
      setRefusal(refusalOf(trouble));
    }
    setSending(null);
    await load();
    reload();
  };

  const options = question ? optionsOf(question, view.generations) : [];
  const rest = question ? question.options.filter((each) => !options.includes(each)) : [];
  const playable = view.generations.filter((each) => each.video_url).length;
  const open = question !== null && !question.response_received && view.state !== "success" && view.state !== "failed";
  const chosen = question?.chosen_options ?? [];
  return (
    <section class="choice" aria-label="Choice">
      <header class="choice-head">
        <div>
          <h2>{question?.subject ?? "Choose a video"}</h2>
          {question?.body && <p class="faint body">{question.body}</p>}
        </div>
        {playable > 1 && <EnsembleControls ensemble={ensemble} count={playable} />}
      </header>
      {Boolean(error) && <Trouble error={error} retry={() => void load()} />}
      {!question && !error && <Skeleton lines={2} />}
      {question?.response_received && (
        <p class="answered" role="status">
          <Icon path={ICONS.check} /> {chosen.join(", ") || "Nothing"} was chosen
          {question.responded_by_user ? ` by ${question.responded_by_user.name}` : ""}.
        </p>
      )}
      {refusal && (
        <Notice title="Airflow did not take the answer" tone="error">
          <p>{refusal}</p>
        </Notice>
      )}
      {open && <Inputs params={question.params} change={setInput} />}
      <div class="variants-box"><ul class="variants" data-count={view.generations.length}>
        {view.generations.map((each, index) => {
          const option = options[index] ?? null;
          return (
            <li key={`${each.task_id} ${each.map_index} ${each.place ?? ""}`} class={option !== null && chosen.includes(option) ? "variant chosen" : "variant"}>
              <VariantVideo generation={each} index={index} ensemble={ensemble} now={view.now} label={option ?? nameOf(each)} />
              <div class="variant-text">
                <div class="variant-head">
                  <h3>{option ?? nameOf(each)}</h3>
                  {each.cost?.usd !== null && each.cost?.usd !== undefined && <span class="faint">{usd(each.cost.usd)}</span>}
                </div>
                <p class="prompt-line">{each.prompt || shortModel(each.model)}</p>
                {open && option !== null && question.multiple && (
                  <label class="mark">
                    <input
                      type="checkbox"
                      checked={marked.includes(option)}
                      onChange={() => setMarked(marked.includes(option) ? marked.filter((one) => one !== option) : [...marked, option])}
                    />
                    {option}
                  </label>
                )}
                {open && option !== null && !question.multiple && (
                  <button type="button" class="button primary" disabled={sending !== null} onClick={() => void answer([option])}>
                    {sending === option ? "Sending…" : `Choose “${option}”`}
                  </button>
                )}
                <details>
                  <summary>Details</summary>
                  <Facts generation={each} />
                </details>
              </div>
            </li>
          );
        })}
      </ul></div>
      {open && rest.length > 0 && !question.multiple && (
        <div class="other-options">
          <span class="faint">Or:</span>
          {rest.map((option) => (
            <button key={option} type="button" class="button" disabled={sending !== null} onClick={() => void answer([option])}>
              {option}
            </button>
          ))}
        </div>
      )}
      {open && question.multiple && (
        <div class="other-options">
          {rest.map((option) => (
            <label key={option} class="mark">
              <input
                type="checkbox"
                checked={marked.includes(option)}
                onChange={() => setMarked(marked.includes(option) ? marked.filter((one) => one !== option) : [...marked, option])}
              />
              {option}
            </label>
          ))}
          <button type="button" class="button primary" disabled={sending !== null || marked.length === 0} onClick={() => void answer(marked)}>
            Send the choice
          </button>
        </div>
      )}
    </section>
  );
}

function refusalOf(trouble: unknown): string {
  if (!(trouble instanceof ApiError)) return String(trouble);
  const words: Record<number, string> = {
    403: "Your Airflow account may not answer this task, or the question is for somebody else.",
    409: "Somebody has answered already; the answer is shown below.",
    404: "Airflow does not know the question any more.",
  };
  return words[trouble.status] ?? trouble.detail;
}

function VariantVideo({ generation, index, ensemble, now, label }: {
  generation: Generation;
  index: number;
  ensemble: ReturnType<typeof useEnsemble>;
  now: number;
  label: string;
}) {
  if (generation.video_url) {
    return <EnsembleVideo ensemble={ensemble} index={index} src={generation.video_url} label={`Video of ${label}`} />;
  }
  if (isWaiting(generation.status)) return <Waiting generation={generation} serverNow={now} />;
  return (
    <div class="no-video">
      <StatusBadge status={generation.status} />
      {generation.failure && <p class="faint">{generation.failure.message}</p>}
    </div>
  );
}

interface Param {
  value?: unknown;
  description?: string | null;
  schema?: { type?: string | string[]; enum?: unknown[]; title?: string };
}

function Inputs({ params, change }: { params: Record<string, unknown>; change: (input: Record<string, unknown>) => void }) {
  const initial = Object.fromEntries(Object.entries(params).map(([name, param]) => [name, valueOf(param)]));
  const [values, setValues] = useState<Record<string, unknown>>(initial);
  useEffect(() => change(values), [values]);
  const names = Object.keys(params);
  if (names.length === 0) return null;
  return (
    <div class="inputs">
      {names.map((name) => {
        const value = values[name];
        const set = (to: unknown) => setValues({ ...values, [name]: to });
        return (
          <label key={name}>
            <span>{name}</span>
            {typeof value === "boolean" ? (
              <input type="checkbox" checked={value} onChange={(event) => set(event.currentTarget.checked)} />
            ) : typeof value === "number" ? (
              <input type="number" value={value} onInput={(event) => set(Number(event.currentTarget.value))} />
            ) : (
              <input type="text" value={value === null || value === undefined ? "" : String(value)} onInput={(event) => set(event.currentTarget.value)} />
            )}
          </label>
        );
      })}
    </div>
  );
}

function valueOf(param: unknown): unknown {
  return typeof param === "object" && param !== null && "value" in param ? (param as Param).value : param;
}
